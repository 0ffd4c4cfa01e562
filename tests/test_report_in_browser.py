"""The report in headless Chromium: no console error, figures drawn, sorting and search work."""

import json

import numpy as np
import pytest

from rlvr_jax.eval import cot_job, report, results
from rlvr_jax.eval.browse import Shown, ShownProblem
from rlvr_jax.eval.counts import Counts
from rlvr_jax.tasks import images, shapes
from tests import chromium

pytestmark = [pytest.mark.check, chromium.needs_chromium]

PROBLEMS, N = 1000, 256
PICTURE = images.thumbnail(shapes.make_problems(1, seed=1)[0], 0, side=280, most_bytes=12_000)
HOSTILE = '</script><img src=x onerror="document.title=1"><b>bold</b>'
FORMULAE = (
  r'Find $\frac{a+1}{\sqrt[3]{b}}$ if $x_1^2 + \sum_{i=1}^{n} i \le 3\pi$.',
  r'\[\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}'
  r'\begin{cases} x & x \geq 0 \\ -x & \text{else}\end{cases}\]',
  r'A ticket costs $5 and a meal $10; the answer is \boxed{\dfrac{3}{4}}.',
)


def counts(rates, seed):
  rng = np.random.default_rng(seed)
  ids = tuple(f'p{i:04d}' for i in range(PROBLEMS))
  c = rng.binomial(N, rates)
  verdicts = {'correct': c, 'wrong': N - c - (c < N), 'timeout': (c < N).astype(np.int64)}
  return Counts(ids, np.full(PROBLEMS, N), c, verdicts=verdicts)


@pytest.fixture(scope='module')
def study():
  rng = np.random.default_rng(0)
  base = np.where(rng.uniform(size=PROBLEMS) < 0.1, 0, rng.beta(0.4, 1.5, PROBLEMS))
  rl = np.where(rng.uniform(size=PROBLEMS) < 0.15, base * 1e-3, np.minimum(0.99, base * 3))
  models = [
    results.ModelResult(name, name, counts(rates, seed))
    for seed, (name, rates) in enumerate((('base', base), ('rl', rl)))
  ]
  return results.analyse(models, resamples=100)


@pytest.fixture(scope='module')
def page(study, tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  samples = [
    ShownProblem(
      problem, FORMULAE[i % 3], '7', '',
      tuple(
        Shown(model, s, f'{FORMULAE[(i + s) % 3]} needle{i} {HOSTILE}\n' + 'so it goes. ' * 150,
              'correct' if s else 'wrong', '7', 'said so', float(s), 40, False)
        for model in ('base', 'rl')
        for s in range(3)
      ),
      images=(PICTURE, f'there is no file {HOSTILE}') if i == 42 else (),
    )
    for i, problem in enumerate(study.problem_ids)
  ]  # fmt: skip
  report.write_study(folder, study, title='Browsed', wall_seconds=1.0, samples=samples)
  return folder / 'report.html'


FIGURES = """
await wait(500);
const shares = [];
for (const image of document.images) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [300, 220];
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, 300, 220);
  context.drawImage(image, 0, 0, 300, 220);
  const pixels = context.getImageData(0, 0, 300, 220).data;
  let dark = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    dark += pixels[i] + pixels[i + 1] + pixels[i + 2] < 700;
  }
  shares.push([image.naturalWidth, dark / (300 * 220)]);
}
return { shares, wide: document.documentElement.scrollWidth, inner: window.innerWidth };
"""


def test_nothing_is_wrong_on_the_console_and_every_figure_is_drawn(page):
  found, console = chromium.run(page, FIGURES)
  assert console == []
  assert len(found['shares']) == 5
  assert all(width > 0 and dark > 0.02 for width, dark in found['shares']), found
  assert page.stat().st_size < 20e6


def test_the_page_fits_a_phone(page):
  narrow = page.with_name('narrow.html')
  frame = f'<iframe src="{page.name}" style="width:400px;height:900px;border:0"></iframe>'
  narrow.write_text(f'<!doctype html><body>{frame}</body>')
  script = """
  await wait(1500);
  const inside = document.querySelector('iframe').contentDocument;
  return [inside.documentElement.scrollWidth, inside.documentElement.clientWidth];
  """
  body = f'{chromium.HELPERS}(async () => {{ {script} }})().then(report);'
  narrow.write_text(f'<!doctype html><body>{frame}<script>{body}</script></body>')
  shown, _ = chromium.start(
    '--allow-file-access-from-files', '--virtual-time-budget=20000', '--dump-dom',
    narrow.resolve().as_uri(),
  )  # fmt: skip
  inside = json.loads(shown.partition('<pre id="test-result">')[2].partition('</pre>')[0])
  assert inside == [400, 400]  # nothing is wider than the screen; tables scroll in themselves


BROWSE = """
const rows = () => [...document.querySelectorAll('#browser tbody tr:not(.below)')];
const column = (at) => rows().map((row) => row.cells[at].textContent);
const status = () => document.querySelector('#browser [role=status]').textContent;
const found = { first: column(0).slice(0, 3), status: status() };
const head = (at) => document.querySelectorAll('#browser thead button')[at];
head(1).click();
found.down = column(1).map((text) => Number(text.split('/')[0]));
head(1).click();
found.up = column(1).map((text) => Number(text.split('/')[0]));
found.sorted = document.querySelector('#browser th[aria-sort]').getAttribute('aria-sort');
const find = document.getElementById('find');
find.value = 'NEEDLE123 ';
find.dispatchEvent(new Event('input'));
await wait(400);
found.searched = [status(), column(0)];
document.querySelector('#browser tbody button').click();
const detail = document.querySelector('.detail');
found.formulae = detail.querySelectorAll('math').length;
found.kinds = [...new Set([...detail.querySelectorAll('math *')].map((e) => e.localName))];
found.raw = detail.querySelectorAll('pre code').length;
found.hostile = [detail.querySelectorAll('img, b').length, document.title,
  detail.textContent.includes('<b>bold</b>')];
detail.querySelector('input[type=checkbox]').click();
found.plain = document.querySelector('.detail').querySelectorAll('math').length;
location.hash = '#problems?set=base_only&min=1';
await wait(200);
found.linked = status();
found.sets = [...new Set(column(6))];
location.hash = '#problems?bin=1%3A0';
await wait(200);
found.bin = status();
location.hash = '#problems?verdict=0%3Atimeout';
await wait(200);
found.timeouts = status();
location.hash = '#problems?id=p0042';
await wait(200);
found.one = [column(0), document.querySelectorAll('.below:not([hidden])').length];
const shown = [...document.querySelector('.detail .problem-images').children];
await Promise.all(shown.filter((e) => e.decode).map((e) => e.decode()));
found.images = shown.map((e) => (e.localName === 'img' ? [e.naturalWidth, e.alt] : e.textContent));
[...document.querySelectorAll('#browser button')].find((b) => b.textContent === 'Clear').click();
found.cleared = status();
[...document.querySelectorAll('#browser > button')].pop().click();
found.more = rows().length;
const table = document.querySelector('table.sortable');
found.tables = document.querySelectorAll('table.sortable').length;
return found;
"""


def test_problems_sort_filter_open_and_are_led_to(page, study):
  found, console = chromium.run(page, BROWSE)
  assert console == []
  sets = study.comparison.sets[0]
  assert found['first'] == ['p0000', 'p0001', 'p0002']
  assert found['status'] == '1000 of 1000 problems'
  assert found['images'] == [[56, 'image 1 of problem p0042'], f'there is no file {HOSTILE}']
  c = np.sort(study.model('base').counts.c)
  assert found['down'] == c[::-1][:50].tolist()
  assert found['up'] == c[:50].tolist()
  assert found['sorted'] == 'ascending'
  assert found['searched'] == ['1 of 1000 problems', ['p0123']]
  assert found['formulae'] >= 6
  assert {'mfrac', 'mroot', 'munderover', 'mtable', 'msubsup'} & set(found['kinds'])
  assert found['raw'] == 0  # all of it was understood
  assert found['hostile'] == [0, 'Browsed', True]
  assert found['plain'] == 0
  assert found['linked'] == f'{len(sets.base_only)} of 1000 problems'
  assert found['sets'] == ['base only']
  lost = int((study.model('rl').counts.c == 0).sum())
  assert found['bin'].startswith(f'{lost} of 1000 problems')
  assert found['timeouts'].startswith(f'{int((study.model("base").counts.c < N).sum())} of 1000')
  assert found['one'] == [['p0042'], 1]
  assert found['cleared'] == '1000 of 1000 problems'
  assert found['more'] == 150


TIMES = """
const took = (what) => { const from = performance.now(); what(); return performance.now() - from; };
return {
  sort: took(() => browser.set({ sort: 'change', down: 1 })),
  first: took(() => browser.set({ q: 'needle77 ' })),
  search: took(() => browser.set({ q: 'needle99' })),
  k: took(() => browser.set({ q: '', k: 256, sort: 'pass:1' })),
};
"""


def test_a_thousand_problems_stay_responsive(page):
  found, _ = chromium.run(page, TIMES, clock=True)
  assert found['sort'] < 500, found  # milliseconds, on a busy machine
  assert found['search'] < 500, found
  assert found['k'] < 500, found
  assert found['first'] < 2000, found  # the first search reads all texts


FORMULA = r"""
const show = (text) => {
  const box = document.createElement('div');
  box.append(...renderMath(text));
  return box;
};
return TEXTS.map((text) => {
  const box = show(text);
  return [box.textContent, box.querySelectorAll('math').length, box.querySelectorAll('code').length,
    [...box.querySelectorAll('math *')].map((e) => e.localName).join(' ')];
});
"""
CASES = [
  (r'$\frac12$', '12', 'mfrac mn mn'),
  (r'$\sqrt[3]{x}$', 'x3', 'mroot mi mn'),
  (r'$x^{2}_i$', 'xi2', 'msubsup mi mi mn'),
  (r'$\mathbb{R}^n$', '\N{DOUBLE-STRUCK CAPITAL R}n', 'msup mi mi'),
  (r'$\left( \frac{1}{2} \right]$', '(12]', 'mrow mo mfrac mn mn mo'),
  (r'$$\sum_{k=1}^\infty$$', '∑k=1∞', 'munderover mo mrow mi mo mn mi'),
  (r'\(\binom{n}{k}\)', '(nk)', 'mrow mo mfrac mi mi mo'),
  (r'$90^\circ$', '90∘', 'msup mn mo'),
  (r'$12{,}500.75$', '12,500.75', 'mrow mn mo mn'),
  (r'\boxed{\frac{3}{4}}', '34', 'mrow mfrac mn mn'),
  (r"$f'(x)$", 'f\N{PRIME}(x)', 'mrow msup mi mo mo mi mo'),
  (r'$\text{if } x \not= 3 \% $', None, None),
  (r'$5 and $10', None, None),  # money
  (r'$\unknownthing{3}$', r'\unknownthing{3}', ''),
  (r'$\frac{1}{$', r'\frac{1}{', ''),
]


def test_formulae_are_set_and_what_is_not_understood_stays_as_written(page):
  texts = [text for text, _, _ in CASES]
  found, console = chromium.run(page, FORMULA.replace('TEXTS', json.dumps(texts)), clock=True)
  assert console == []
  for (text, shown, tags), (content, formulae, raw, names) in zip(CASES, found, strict=True):
    if shown is None:
      assert content == text
      assert formulae == 0
    elif tags:
      assert (content, formulae, raw, names) == (shown, 1, 0, tags)
    else:
      assert (content, formulae, raw) == (shown, 0, 1)


READ = """
const press = (key) => document.dispatchEvent(new KeyboardEvent('keydown', { key }));
const first = document.querySelector('#item pre').textContent;
const images = [...document.querySelectorAll('#item .problem-images > *')]
  .map((e) => [e.localName, e.localName === 'img' ? e.alt : e.textContent]);
press('v'); press('i'); press('u');
[...document.querySelectorAll('.verdicts button')]
  .find((b) => b.textContent === 'Back').click();
const pressed = [...document.querySelectorAll('.verdicts [aria-pressed=true]')]
  .map((b) => b.textContent);
let saved = null;
URL.createObjectURL = (blob) => { saved = blob; return '#saved'; };
document.getElementById('reader').value = 'anna';
document.getElementById('save').click();
const progress = document.getElementById('progress').textContent;
return { first, images, pressed, progress, saved: JSON.parse(await saved.text()) };
"""


def test_the_reading_page_keeps_and_saves_verdicts(tmp_path):
  items = [
    {'id': f'{i:04d}', 'prompt': f'What is $1+{i}$?', 'reference': str(i), 'completion': HOSTILE}
    for i in range(4)
  ]
  items[0] |= {'images': (PICTURE, HOSTILE)}
  cot_job.write_page(tmp_path / 'reading.html', 'abc', items)
  found, console = chromium.run(tmp_path / 'reading.html', READ)
  assert console == []
  assert found['first'] == 'What is 1+0?'
  assert found['images'] == [['img', 'image 1'], ['p', HOSTILE]]
  assert found['pressed'] == ['unsure']
  assert found['progress'] == '3 of 4 judged'
  wanted = {'0000': 'valid', '0001': 'invalid', '0002': 'unsure'}
  assert found['saved'] == {'page': 'abc', 'reader': 'anna', 'verdicts': wanted}
