"""Writes tests/fixtures/corpus_500.txt: 500 lines on which tokenizers tend to disagree.

  python tests/goldens/make_corpus.py

All sentences are our own. The file is UTF-8 with '\n' line ends; read it without newline
translation (some lines hold '\r', U+2028 or a trailing blank on purpose).
"""

# ruff: noqa: RUF001 (look-alike letters are the point)

import pathlib
import random
import unicodedata

TARGET = pathlib.Path(__file__).parents[1] / 'fixtures' / 'corpus_500.txt'

PROSE = """
The committee didn't vote, they'd wait; I'm sure we've all seen it's what you'll want.
HE SAID: "DON'T STOP, WE'LL SEE, I'VE GOT IT, YOU'RE NEXT" -- and left (quietly).
a, b; c: d... e -- f — g – h ‘i’ “j” «k» ‹l› ¿m? ¡n!
An e-mail to someone@example.org, or https://example.org/a_b?c=d&e=%20f#g-1.
Snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE dotted.name a/b\\c x::y
Der Fluss trägt im Frühjahr mehr Wasser, weil der Schnee auf den Höhen schmilzt.
Straßenbahnhaltestellenverzeichnis, Größenänderung und Übergrößenträger.
Où est passé l'élève qui préférait l'œuvre ? Elle s'est tue, à l'aube, çà et là.
Aujourd'hui, j'ai vu qu'il n'y avait plus d'eau dans le puits.
El año pasado llovió poco, y aun así la cosecha del pueblo fue más grande.
¿Quién preguntó cuánto pesan diez manzanas? ¡Nadie lo sabía!
A manhã trouxe névoa; não se via a ponte, só o rumor das águas.
Perché la città è vuota? Più di così non si può, però si tenta.
Zażółć gęślą jaźń, rzekł świerszcz i poszedł w las.
Příliš žluťoučký kůň se vydal k řece dřív, než vyšlo slunce.
Az ősz végén a gyümölcsök megértek, és az öreg fűzfa lehajolt a tó fölé.
Noaptea târziu, șoferul își aminti că țara lui are și munți, și mare.
İstanbul'da yağmur dinince ışıklar söndü; kıyıda küçük bir çocuk güldü.
Môi trường ở đây đã thay đổi nhiều, nhưng dòng sông vẫn chảy về phía đông.
Þegar vorið kemur ætlar hún að byggja hús við ána og gróðursetja tré.
Hän luki kirjaa iltaisin, vaikka työpäivä oli pitkä ja väsyttävä.
Sjøen lå stille, og båten gled inn mot øya før mørket falt på.
Річка тече повільно, а над лугом стоїть ґрунтовний туман; їжак спить.
Вчера мы считали звёзды до полуночи, но сбились на сто двадцать третьей.
Ёлка, объём, подъезд: съешь ещё этих мягких булок позже.
Българското лято е горещо, а зимата носи сняг по върховете.
Ο ποταμός περνά κάτω από τη γέφυρα· πού πάει, άραγε, το νερό;
Μαθαίνουμε να μετράμε: ένα, δύο, τρία, τέσσερα, πέντε.
השמש זרחה מעל ההרים, והילדים יצאו לשחק בחצר.
בְּרֵאשִׁית הָיָה מִסְפָּר, וְאַחֲרָיו בָּאוּ אֲחֵרִים.
كان النهر يجري ببطء تحت الجسر، ولم يكن أحد يعرف أين ينتهي.
العَدَدُ سَبْعَةٌ أَكْبَرُ مِنَ العَدَدِ خَمْسَةٍ، أليس كذلك؟
درس ریاضی امروز دربارهٔ کسرها بود و می‌خواهیم آن را مرور کنیم.
ہم نے کل پانچ سو سطریں لکھیں اور پھر انھیں گن لیا۔
नदी धीरे-धीरे बहती है और पुल के नीचे से निकल जाती है।
पाँच में से दो घटाने पर तीन बचते हैं, यह सरल है।
আজ সকালে বৃষ্টি হয়েছে, তাই মাঠে কেউ খেলতে যায়নি।
இன்று காலை மழை பெய்தது; குழந்தைகள் வீட்டிலேயே இருந்தனர்.
ఈ రోజు మేము ఐదు వందల వాక్యాలు రాశాము.
ಮಳೆ ನಿಂತ ಮೇಲೆ ಮಕ್ಕಳು ಆಡಲು ಹೊರಟರು.
മഴ മാറിയപ്പോൾ കുട്ടികൾ കളിക്കാൻ പോയി.
ਅੱਜ ਸਵੇਰੇ ਮੀਂਹ ਪਿਆ ਅਤੇ ਖੇਤ ਹਰੇ ਹੋ ਗਏ।
วันนี้ฝนตกหนัก เราจึงนั่งนับตัวเลขอยู่ในบ้าน
ມື້ນີ້ຝົນຕົກ ພວກເຮົາຢູ່ເຮືອນ
ယနေ့ မိုးရွာသည်၊ ကလေးများ အိမ်တွင် ကစားကြသည်။
ថ្ងៃនេះមានភ្លៀង ហើយក្មេងៗនៅផ្ទះ។
མི་ཚང་མས་གྲངས་ཀ་རྩིས་པ་རེད།
今天的雨下了很久,孩子们在屋里数数:一、二、三。
這條河流得很慢,橋下的水卻深得看不見底。
三加五等于八;请把答案写在方框里。
東京の朝は静かで、川沿いの道を自転車がゆっくり通り過ぎた。
カタカナとひらがなと漢字を混ぜて、数字の123も書いてみる。
「はい」と彼女は答えた……それだけだった。
강물은 천천히 흐르고, 아이들은 다리 아래에서 돌을 던졌다.
다섯에서 둘을 빼면 셋이 남는다는 것을 모두가 안다.
დღეს წვიმს და ბავშვები სახლში ითვლიან რიცხვებს.
Այսօր անձրև է, և երեխաները տանը հաշվում են թվերը։
ዛሬ ዝናብ ስለዘነበ ልጆቹ ቤት ውስጥ ቁጥር ቆጠሩ።
Leo mvua imenyesha sana, watoto walihesabu namba nyumbani.
Ní raibh an abhainn domhain, ach bhí sí an-fhuar ar maidin.
ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ
Þæt wæs ġōd cyning: þǣr wæs ƿynn.
Ĉiuj homoj estas kreitaj egalaj laŭ ĵus skribita frazo.
""".strip('\n').split('\n')

MATHS = """
Let $f(x) = \\frac{{{a}x^2 - {b}}}{{x + {c}}}$; then $f({c}) = \\boxed{{{d}}}$.
\\[ \\sum_{{k=1}}^{{{a}}} k^{b} = \\binom{{{c}}}{{{b}}} \\pmod{{{d}}} \\]
If {a}x + {b} = {c}, then x = ({c} - {b}) / {a} ≈ {e}.
∀ε>0 ∃δ>0: |x−{a}|<δ ⇒ |f(x)−{b}|<ε, so lim_(x→{a}) f(x) = {b} ∎
√{a} ≤ {b}π/{c} < ∞, ∫₀^{d} x²dx = ⅓·{d}³, x₁⁻¹ ∉ ℚ ∪ ℝ∖ℤ
{a},{b}{c}.{d}% of ${c},{a}00.50 is about €{e} or ¥{b}{b}{b}
GCD({a}, {b}) = {c} and {d}! / ({d} - {c})! = {d}^{c}; 1e-{a} vs 1.5E+{b}
#### {a}{b}
\\begin{{pmatrix}} {a} & {b} \\\\ {c} & -{d} \\end{{pmatrix}}^{{-1}}
So she has {a} - {b} = <<{a}-{b}={e}>>{e} apples left.
""".strip('\n').split('\n')

CODE = """
def f{a}(x: int, *, key: str = '{b}') -> list[int]:
    return [x ** {c} for x in range({a}, {d}) if x % {b} != 0]
\tif (i < {a} && !(j >> {b})) {{ return *p++ ^ 0x{a:04X}; }}
        for(int i=0;i<{a};i++){{sum+=a[i]*{b};}}
  const g = async ({{a, b}}) => `${{a}}-${{b ?? {c}}}`; // {d}
SELECT id, COUNT(*) AS n FROM t{a} WHERE x >= {b} GROUP BY id HAVING n > {c};
fn main() {{ let v: Vec<u{c}> = (0..{a}).map(|x| x*x).collect(); println!("{{:?}}", v); }}
<div class="row-{a}" id='x{b}'>&nbsp;&lt;{c}&gt;</div><!-- {d} -->
{{"key_{a}": [{b}, {c}.{d}, null, true], "nested": {{"a": "\\u00e9\\n"}}}}
#include <stdio.h>  /* {a} */ #define MAX(a,b) ((a)>(b)?(a):(b))
            self.assertEqual(foo(bar[{a}:{b}]), {{'x': -{c}}})
$ git log --oneline -n{a} | grep -E '^[0-9a-f]{{{b}}}' > /dev/null 2>&1
""".strip('\n').split('\n')

SPECIALS = [
  '<|im_start|>',
  '<|im_end|>',
  '<|endoftext|>',
  '<|fim_prefix|>',
  '<|fim_middle|>',
  '<tool_call>',
  '</tool_call>',
  '<|repo_name|>',
  '<|file_sep|>',
  '<repo_name>',
  '<jupyter_code>',
  '<empty_output>',
  '<|IM_END|>',
  '<|im_end',
]

SYMBOLS = """
🙂🙃😀 plain, 👍🏽 with a tone, 👨‍👩‍👧‍👦 joined, 🇩🇪🇯🇵 flags, ❤️ with a selector
🎉🎉🎉🎉🎉🎉🎉🎉 party x8 🧮➕➖✖️➗ = ♾️
→ ← ↔ ⇒ ∴ ∵ ★ ☆ ✓ ✗ ■ □ ▲ ▼ ◆ ◇ ┌─┐│└┘ ░▒▓█
½ ⅓ ¼ ² ³ ¹⁰ ₁₂ Ⅳ ⅻ ① ② ㊿ ١٢٣ ۴۵۶ १२३ ๑๒๓ 一二三 １２３ 𝟏𝟐𝟑
ﬁ ﬂ ﬀ ŉ ǆ Å Å Å K Ω µ μ ﷺ ẛ̣
éèê e\u0301e\u0300e\u0302 n\u0303 a\u030a \u1112\u1161\u11ab \u0958 \u212b
zero\u200bwidth\u200djoin\u200cer soft\u00adhyphen bom\ufeffhere \u2060word
nbsp\u00a0here thin\u2009em\u2003ideographic\u3000figure\u2007narrow\u202f.
line\u2028sep para\u2029sep nel\u0085here vt\x0bff\x0chere
rtl\u200fmark \u202aembed\u202c \u2067isolate\u2069
\ufffd\ufffd private \ue000\uf8ff astral 𠀀𠮷𪚥 𐍈𐎠 𝒳𝔸𝕭
ctl \x01\x02\x1b[31mred\x1b[0m \x7f end
Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ
'''\"\"\"``` ~~~ ---- ==== **** #### //// \\\\\\\\ ???? !!!! .... ,,,, ;;;;
's 't 're 've 'm 'll 'd 'S 'T 'RE 'VE 'M 'LL 'D ’s ’t 'ſ 'x
""".strip('\n').split('\n')


def digits(rng: random.Random, count: int) -> list[str]:
  lines = []
  for i in range(count):
    number = ''.join(rng.choice('0123456789') for _ in range(rng.randint(1, 40)))
    form = i % 5
    if form == 0:
      lines.append(number)
    elif form == 1:
      lines.append(f'x{number}y {number[:3]},{number[3:6]}.{number[6:9]}')
    elif form == 2:
      lines.append(f'  {number[:7]}  -{number[7:]}  +{number[:2]}')
    elif form == 3:
      lines.append(f'{number[:4]}-{number[4:6]}-{number[6:8]}T{number[:2]}:{number[2:4]}Z')
    else:
      lines.append('0x' + ''.join(rng.choice('0123456789abcdefABCDEF') for _ in range(24)))
  return lines


def blanks(rng: random.Random, count: int) -> list[str]:
  lines = ['', ' ', '  ', '\t', '\t\t \t', '\r', ' \r', 'end of line \r', '\u3000', '\u00a0\u00a0']
  while len(lines) < count:
    words = [rng.choice(['a', 'bb', '1', '.', 'end', '::', '"', 'é', '中']) for _ in range(6)]
    gaps = [rng.choice([' ', '  ', '   ', '\t', ' ' * rng.randint(4, 40), ' \t ']) for _ in words]
    line = ''.join(g + w for g, w in zip(gaps, words, strict=True))
    lines.append(line + rng.choice(['', ' ', '    ', '\t']))
  return lines


def specials(rng: random.Random, count: int) -> list[str]:
  words = ['user', 'hello', ' ', '  ', 'assistant', '7', 'é', '...', '中文', 'x']
  return [
    ''.join(rng.choice(SPECIALS if rng.random() < 0.5 else words) for _ in range(rng.randint(1, 9)))
    for _ in range(count)
  ]


def mixtures(rng: random.Random, count: int) -> list[str]:
  """Random code points from many blocks, and shuffled pieces of the prose, some decomposed."""
  blocks = [(0x20, 0x7F), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF)]
  blocks += [(0x5D0, 0x5EA), (0x620, 0x64A), (0x904, 0x939), (0x3041, 0x30FE), (0x4E00, 0x9FA5)]
  blocks += [(0xAC00, 0xD7A3), (0x2000, 0x206F), (0x2190, 0x22FF), (0x1F300, 0x1F5FF)]
  lines = []
  for i in range(count):
    if i % 2:
      text = ''.join(chr(rng.randint(*rng.choice(blocks))) for _ in range(rng.randint(4, 30)))
    else:
      pieces = [rng.choice(PROSE).split(' ') for _ in range(3)]
      text = ' '.join(' '.join(p[: rng.randint(1, 5)]) for p in pieces)
      text = unicodedata.normalize(rng.choice(['NFC', 'NFD', 'NFKD']), text)
    lines.append(text)
  return lines


def templated(rng: random.Random, templates: list[str], count: int) -> list[str]:
  lines = []
  for i in range(count):
    a, b, c, d, e = (rng.randint(2, 10 ** rng.randint(1, 4)) for _ in range(5))
    lines.append(templates[i % len(templates)].format(a=a, b=b, c=c, d=d, e=e))
  return lines


def corpus() -> list[str]:
  rng = random.Random(20240213)
  lines = PROSE + SYMBOLS
  lines += templated(rng, MATHS, 90) + templated(rng, CODE, 100)
  lines += digits(rng, 50) + blanks(rng, 60) + specials(rng, 50)
  lines += mixtures(rng, 500 - len(lines))
  assert len(lines) == 500, len(lines)
  assert not any('\n' in line for line in lines)
  return lines


if __name__ == '__main__':
  TARGET.parent.mkdir(exist_ok=True)
  TARGET.write_bytes('\n'.join(corpus()).encode() + b'\n')
  print(TARGET, TARGET.stat().st_size, 'bytes')
