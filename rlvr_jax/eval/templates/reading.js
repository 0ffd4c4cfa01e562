// One completion at a time; verdicts stay in this browser until they are saved to a file.
{
  const { page, items } = JSON.parse(document.getElementById('data').textContent);
  const key = `rlvr_jax reading ${page}`;
  const kept = () => { try { return JSON.parse(localStorage.getItem(key)) || {}; } catch { return {}; } };
  const verdicts = kept().verdicts || {}, reader = document.getElementById('reader');
  reader.value = kept().reader || '';
  let at = Math.max(0, items.findIndex((item) => !(item.id in verdicts)));
  const make = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) k === 'onclick' ? made.addEventListener('click', v) : made.setAttribute(k, v);
    made.append(...children);
    return made;
  };
  const record = () => ({ page, reader: reader.value.trim(), verdicts });
  const keep = () => { try { localStorage.setItem(key, JSON.stringify(record())); } catch { /* a private window */ } };
  const show = () => {
    const item = items[at], done = Object.keys(verdicts).length;
    document.getElementById('progress').textContent = `${done} of ${items.length} judged`;
    const labels = ['valid', 'invalid', 'unsure'].map((label) => make('button', { type: 'button', 'aria-pressed': String(verdicts[item.id] === label), onclick: () => judge(label) }, label));
    const images = (item.images || []).map((image, i) => (image.startsWith('data:image/')
      ? make('img', { src: image, alt: `image ${i + 1}`, class: 'problem-image' }) : make('p', { class: 'note' }, image)));
    document.getElementById('item').replaceChildren(
      make('h2', {}, `Completion ${at + 1} of ${items.length}`),
      make('h3', {}, 'Problem'), make('div', { class: 'problem-images' }, ...images), make('pre', {}, ...renderMath(item.prompt)),
      make('p', { class: 'note' }, 'Reference: ', make('code', {}, item.reference)),
      make('h3', {}, 'Completion'), make('pre', {}, ...renderMath(item.completion)),
      make('div', { class: 'verdicts' }, ...labels,
        make('button', { type: 'button', class: 'step', onclick: () => go(-1) }, 'Back'), make('button', { type: 'button', onclick: () => go(1) }, 'Next')),
    );
  };
  const go = (by) => { at = Math.min(items.length - 1, Math.max(0, at + by)); show(); window.scrollTo(0, 0); };
  const judge = (label) => { verdicts[items[at].id] = label; keep(); at + 1 < items.length ? go(1) : show(); };
  reader.addEventListener('input', keep);
  document.addEventListener('keydown', (event) => {
    if (event.target === reader || event.ctrlKey || event.metaKey || event.altKey) return;
    const label = { v: 'valid', i: 'invalid', u: 'unsure' }[event.key];
    if (label) judge(label);
    if (event.key === 'ArrowRight') go(1);
    if (event.key === 'ArrowLeft') go(-1);
  });
  document.getElementById('save').addEventListener('click', () => {
    const file = new Blob([JSON.stringify(record(), null, 1)], { type: 'application/json' });
    const link = make('a', { href: URL.createObjectURL(file), download: `verdicts-${page}-${reader.value.trim() || 'reader'}.json` });
    link.click();
  });
  show();
}
