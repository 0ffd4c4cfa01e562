// TeX as MathML, by the DOM alone: what is not understood stays visible as its source.
const renderMath = (() => {
  const NS = 'http://www.w3.org/1998/Math/MathML';
  const words = (text) => Object.fromEntries(text.trim().split(/\s+/).map((pair) => {
    const at = pair.indexOf(':');
    return [pair.slice(0, at), pair.slice(at + 1)];
  }));
  const LETTERS = words(`alpha:α beta:β gamma:γ delta:δ epsilon:ϵ varepsilon:ε zeta:ζ eta:η theta:θ
    vartheta:ϑ iota:ι kappa:κ lambda:λ mu:μ nu:ν xi:ξ omicron:ο pi:π varpi:ϖ rho:ρ varrho:ϱ sigma:σ
    varsigma:ς tau:τ upsilon:υ phi:ϕ varphi:φ chi:χ psi:ψ omega:ω Gamma:Γ Delta:Δ Theta:Θ Lambda:Λ
    Xi:Ξ Pi:Π Sigma:Σ Upsilon:Υ Phi:Φ Psi:Ψ Omega:Ω infty:∞ ell:ℓ emptyset:∅ varnothing:∅ partial:∂
    nabla:∇ hbar:ℏ Re:ℜ Im:ℑ aleph:ℵ angle:∠ triangle:△ square:□ Box:□ blacksquare:■ prime:′ top:⊤
    bot:⊥ degree:° checkmark:✓ star:⋆ bigstar:★ clubsuit:♣ diamondsuit:♢ heartsuit:♡ spadesuit:♠`);
  const OPERATORS = words(`cdot:⋅ times:× div:÷ pm:± mp:∓ ast:∗ circ:∘ bullet:• oplus:⊕ ominus:⊖
    otimes:⊗ odot:⊙ wedge:∧ land:∧ vee:∨ lor:∨ neg:¬ lnot:¬ cap:∩ cup:∪ setminus:∖ le:≤ leq:≤
    leqslant:⩽ ge:≥ geq:≥ geqslant:⩾ ne:≠ neq:≠ equiv:≡ approx:≈ sim:∼ simeq:≃ cong:≅ propto:∝ ll:≪
    gg:≫ in:∈ notin:∉ ni:∋ subset:⊂ subseteq:⊆ supset:⊃ supseteq:⊇ subsetneq:⊊ to:→ rightarrow:→
    leftarrow:← gets:← leftrightarrow:↔ Rightarrow:⇒ implies:⟹ Leftarrow:⇐ Leftrightarrow:⇔ iff:⟺
    mapsto:↦ longrightarrow:⟶ Longrightarrow:⟹ uparrow:↑ downarrow:↓ nearrow:↗ forall:∀ exists:∃
    perp:⊥ parallel:∥ mid:∣ nmid:∤ vert:| Vert:‖ lvert:| rvert:| lVert:‖ rVert:‖ langle:⟨ rangle:⟩
    lfloor:⌊ rfloor:⌋ lceil:⌈ rceil:⌉ lbrace:{ rbrace:} lbrack:[ rbrack:] ldots:… dots:… cdots:⋯
    vdots:⋮ ddots:⋱ dotsc:… dotsb:⋯ colon:: because:∵ therefore:∴ backslash:\\ models:⊨ prec:≺ succ:≻
    triangleq:≜ sum:∑ prod:∏ coprod:∐ int:∫ iint:∬ oint:∮ bigcup:⋃ bigcap:⋂ bigoplus:⨁ bigwedge:⋀`);
  const LARGE = new Set('∑∏∐⋃⋂⨁⋀');
  const FUNCTIONS = new Set(`arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf
    ker lcm lg lim liminf limsup ln log max min Pr sec sin sinh sup tan tanh mod`.split(/\s+/));
  const LIMITS = new Set('lim liminf limsup max min sup inf det gcd Pr'.split(' '));
  const SPACES = { ',': '.17em', ':': '.22em', ';': '.28em', '!': '-.17em', ' ': '.3em', quad: '1em',
    qquad: '2em', thinspace: '.17em', enspace: '.5em', space: '.3em' };
  const ACCENTS = { hat: '^', widehat: '^', bar: '¯', overline: '¯', vec: '→', dot: '˙', ddot: '¨',
    tilde: '~', widetilde: '~', overrightarrow: '→', overleftrightarrow: '↔', overbrace: '⏞',
    overarc: '⌢', check: 'ˇ' };
  const VARIANTS = { mathbb: 'double-struck', mathcal: 'script', mathscr: 'script', mathfrak: 'fraktur',
    Bbb: 'double-struck' };
  const BASES = { 'double-struck': [0x1d538, 0x1d552, 0x1d7d8], script: [0x1d49c, 0x1d4b6, 0],
    fraktur: [0x1d504, 0x1d51e, 0] };
  const HOLES = words(`double-struckC:ℂ double-struckH:ℍ double-struckN:ℕ double-struckP:ℙ
    double-struckQ:ℚ double-struckR:ℝ double-struckZ:ℤ scriptB:ℬ scriptE:ℰ scriptF:ℱ scriptH:ℋ
    scriptI:ℐ scriptL:ℒ scriptM:ℳ scriptR:ℛ scripte:ℯ scriptg:ℊ scripto:ℴ frakturC:ℭ frakturH:ℌ
    frakturI:ℑ frakturR:ℜ frakturZ:ℨ`);
  const FENCES = { matrix: ['', ''], smallmatrix: ['', ''], pmatrix: ['(', ')'], bmatrix: ['[', ']'],
    Bmatrix: ['{', '}'], vmatrix: ['|', '|'], Vmatrix: ['‖', '‖'], cases: ['{', ''], array: ['', ''],
    aligned: ['', ''], align: ['', ''], 'align*': ['', ''], gathered: ['', ''], gather: ['', ''],
    'gather*': ['', ''], split: ['', ''], equation: ['', ''], 'equation*': ['', ''], eqnarray: ['', ''],
    'eqnarray*': ['', ''], alignat: ['', ''], dcases: ['{', ''] };
  const ROMAN = new Set(['mathrm', 'operatorname', 'mathbf', 'mathit', 'mathsf', 'mathtt', 'boldsymbol',
    'bold', 'bm', 'pmb', 'rm', 'bf', 'it']);
  const TEXT = new Set(['text', 'textbf', 'textit', 'textrm', 'textsf', 'texttt', 'mbox', 'hbox',
    'emph', 'textnormal']);
  const IGNORED = new Set(['displaystyle', 'textstyle', 'scriptstyle', 'scriptscriptstyle', 'limits',
    'nolimits', 'nonumber', 'notag', 'hline', 'allowbreak', 'strut', 'mathstrut']);
  const SIZES = /^(?:[bB]igg?[lrm]?)$/;
  const element = (name, children = [], attributes = {}) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const row = (children) => (children.length === 1 ? children[0] : element('mrow', children));
  const fence = (text, stretchy) => element('mo', [text], { fence: 'true', stretchy: String(stretchy) });
  const styled = (text, variant) => [...text].map((letter) => {
    const [upper, lower, digit] = BASES[variant], code = letter.codePointAt(0);
    const base = letter >= 'A' && letter <= 'Z' ? upper - 65 : letter >= 'a' && letter <= 'z'
      ? lower - 97 : digit && letter >= '0' && letter <= '9' ? digit - 48 : 0;
    return HOLES[variant + letter] || (base ? String.fromCodePoint(base + code) : letter);
  }).join('');

  class Parser {
    constructor(source) {
      this.tokens = source.match(/\\(?:[a-zA-Z]+\*?|[\s\S])|\s+|[\s\S]/gu) || [];
      this.at = 0;
      this.depth = 0;
    }
    skip() { while (this.at < this.tokens.length && /^\s/.test(this.tokens[this.at])) this.at += 1; }
    peek() { this.skip(); return this.tokens[this.at]; }
    next() {
      const token = this.peek();
      if (token === undefined) throw new Error('it ends too early');
      this.at += 1;
      return token;
    }
    expect(token) { if (this.next() !== token) throw new Error(`${token} is missing`); }
    raw() { // the source of a group in braces, or of one token
      if (this.peek() !== '{') return this.next();
      let depth = 0, text = '';
      do {
        const token = this.tokens[this.at++];
        if (token === undefined) throw new Error('} is missing');
        depth += (token === '{') - (token === '}');
        text += token;
      } while (depth);
      return text.slice(1, -1);
    }
    argument() {
      const first = this.next();
      if (/[0-9]/.test(first)) return element('mn', [first]);
      if (first !== '{') { this.at -= 1; return this.atom(); }
      const inside = this.row((token) => token === '}');
      this.expect('}');
      return inside;
    }
    row(ends) {
      if ((this.depth += 1) > 60) throw new Error('nested too deeply');
      const made = [];
      for (let token = this.peek(); token !== undefined && !ends(token); token = this.peek()) {
        if (token === '\\over' || token === '\\choose') {
          this.next();
          const below = this.row(ends);
          this.depth -= 1;
          return token === '\\over' ? element('mfrac', [row(made), below]) : this.choose(row(made), below);
        }
        if (IGNORED.has(token.slice(1)) && token[0] === '\\') this.next();
        else made.push(this.scripted());
      }
      this.depth -= 1;
      return row(made);
    }
    choose(above, below) {
      const inside = element('mfrac', [above, below], { linethickness: '0' });
      return element('mrow', [fence('(', true), inside, fence(')', true)]);
    }
    scripted() {
      const base = '^_\''.includes(this.peek()) ? element('mrow') : this.atom();
      let below = null, above = [];
      for (let token = this.peek(); ['^', '_', '\'', '\\limits', '\\nolimits'].includes(token);
        token = this.peek()) {
        this.next();
        if (token === '_') below = this.argument();
        else if (token === '^') above.push(this.argument());
        else if (token === '\'') above.push(element('mo', ['′']));
      }
      const over = above.length ? row(above) : null;
      if (!over && !below) return base;
      const wide = LARGE.has(base.textContent) || LIMITS.has(base.textContent);
      const [both, sub, sup] = wide ? ['munderover', 'munder', 'mover'] : ['msubsup', 'msub', 'msup'];
      if (over && below) return element(both, [base, below, over]);
      return below ? element(sub, [base, below]) : element(sup, [base, over]);
    }
    atom() {
      const token = this.next();
      if (token === '{') { this.at -= 1; return this.argument(); }
      if (token[0] === '\\') return this.command(token.slice(1));
      if (token === '}' || token === '&') throw new Error(`a lone ${token}`);
      if (token === '~') return element('mspace', [], { width: '.3em' });
      if (/[0-9]/.test(token)) {
        let number = token;
        while (/^[0-9]$/.test(this.tokens[this.at]) || (/^[.]$/.test(this.tokens[this.at])
          && /^[0-9]$/.test(this.tokens[this.at + 1]))) number += this.tokens[this.at++];
        return element('mn', [number]);
      }
      if (/\p{L}/u.test(token)) return element('mi', [token]);
      return '()[]|'.includes(token) ? fence(token, false)
        : element('mo', [token === '-' ? '−' : token === '*' ? '∗' : token]);
    }
    delimiter() {
      const token = this.next(), name = token.slice(1);
      if (token[0] !== '\\') return token === '.' ? '' : token === '<' ? '⟨' : token === '>' ? '⟩' : token;
      if (name === '|') return '‖';
      if ('{}'.includes(name)) return name;
      if (OPERATORS[name]) return OPERATORS[name];
      throw new Error(`\\${name} is no delimiter`);
    }
    command(name) {
      if (LETTERS[name]) return element('mi', [LETTERS[name]]);
      if (OPERATORS[name]) return element('mo', [OPERATORS[name]]);
      if (FUNCTIONS.has(name)) return element('mi', [name]);
      if (name in SPACES) return element('mspace', [], { width: SPACES[name] });
      if ('{}%$#&_'.includes(name)) return element('mo', [name]);
      if (name === '|') return element('mo', ['‖']);
      if (/^[dtc]?frac$/.test(name)) return element('mfrac', [this.argument(), this.argument()]);
      if (/^[dt]?binom$/.test(name)) return this.choose(this.argument(), this.argument());
      if (TEXT.has(name)) return element('mtext', [this.raw().replace(/\\([%$#&_{} ])/g, '$1').replace(/^ | $/g, '\u00a0')]);
      if (VARIANTS[name]) return element('mi', [styled(this.raw(), VARIANTS[name])]);
      if (ROMAN.has(name.replace('*', ''))) {
        const text = this.peek() === '{' ? this.raw() : this.next();
        return /^[\p{L} ]+$/u.test(text) ? element('mi', [text], { mathvariant: 'normal' })
          : new Parser(text).whole();
      }
      if (name === 'sqrt') {
        if (this.peek() !== '[') return element('msqrt', [this.argument()]);
        this.next();
        const degree = this.row((token) => token === ']');
        this.expect(']');
        return element('mroot', [this.argument(), degree]);
      }
      if (ACCENTS[name]) {
        return element('mover', [this.argument(), element('mo', [ACCENTS[name]])], { accent: 'true' });
      }
      if (name === 'underline') return element('munder', [this.argument(), element('mo', ['_'])]);
      if (name === 'underbrace') return element('munder', [this.argument(), element('mo', ['⏟'])]);
      if (name === 'boxed' || name === 'fbox') {
        return element('mrow', [this.argument()], { class: 'boxed' });
      }
      if (name === 'overset' || name === 'stackrel') {
        const above = this.argument();
        return element('mover', [this.argument(), above]);
      }
      if (name === 'underset') {
        const below = this.argument();
        return element('munder', [this.argument(), below]);
      }
      if (name === 'xrightarrow') return element('mover', [element('mo', ['⟶']), this.argument()]);
      if (name === 'phantom' || name === 'hspace' || name === 'vspace' || name === 'label' || name === 'tag') {
        this.raw();
        return element('mrow');
      }
      if (name === 'pmod') {
        return element('mrow', [element('mtext', ['(mod\u00a0']), this.argument(), element('mtext', [')'])]);
      }
      if (name === 'bmod') return element('mo', ['mod'], { lspace: '.3em', rspace: '.3em' });
      if (name === 'not') return element('mo', [`${this.atom().textContent}\u0338`]);
      if (name === 'left') return this.fenced();
      if (SIZES.test(name)) return fence(this.delimiter(), false);
      if (name === 'begin') return this.environment();
      throw new Error(`\\${name} is not known`);
    }
    fenced() {
      const open = this.delimiter(), made = [fence(open, true)];
      const ends = (token) => token === '\\right' || token === '\\middle';
      for (;;) {
        made.push(this.row(ends));
        const token = this.next();
        made.push(fence(this.delimiter(), true));
        if (token === '\\right') return element('mrow', made);
      }
    }
    environment() {
      const name = this.raw();
      if (!FENCES[name]) throw new Error(`${name} is not known`);
      if (name === 'array' || name === 'alignat') this.raw();
      const rows = [];
      const ends = (token) => token === '&' || token === '\\\\' || token === '\\end' || token === '\\cr';
      for (let cells = [], token = ''; token !== '\\end';) {
        cells.push(element('mtd', [this.row(ends)]));
        token = this.next();
        if (token === '&') continue;
        rows.push(element('mtr', cells));
        cells = [];
      }
      if (this.raw() !== name) throw new Error(`${name} does not end`);
      const [open, close] = FENCES[name], left = name.includes('cases') || /align|split/.test(name);
      const body = element('mtable', rows, left ? { columnalign: 'left' } : {});
      return element('mrow', [...(open ? [fence(open, true)] : []), body, ...(close ? [fence(close, true)] : [])]);
    }
    whole() {
      const made = this.row(() => false);
      if (this.at < this.tokens.length) throw new Error('something is left over');
      return made;
    }
  }

  const math = (source, block) => {
    try {
      const made = element('math', [new Parser(source).whole()], block ? { display: 'block' } : {});
      made.setAttribute('title', source);
      return made;
    } catch (error) { // a model may write anything: what is no TeX of ours is shown as it stands
      const shown = document.createElement('code');
      shown.textContent = source;
      shown.title = `shown as written: ${error.message}`;
      return shown;
    }
  };
  // $$..$$, \[..\], \(..\), $..$ (no blank inside its ends, no digit after), or a bare environment
  const MATH = new RegExp([
    /\$\$([^$]{1,4000}?)\$\$/, /\\\[([\s\S]{1,4000}?)\\\]/, /\\\(([\s\S]{1,2000}?)\\\)/,
    /(?<![\\$])\$(?![\s$])((?:\\[\s\S]|[^$\\]){0,800}?(?:\\[\s\S]|[^$\\\s]))\$(?![\d$])/,
    /(\\begin\{(?:align|gather|equation)\*?\}[\s\S]{1,4000}?\\end\{(?:align|gather|equation)\*?\})/,
  ].map((pattern) => pattern.source).join('|'), 'gu');
  const BOXED = /\\boxed\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}/gu;
  const plain = (text) => {
    const parts = [];
    let last = 0;
    for (const found of text.matchAll(BOXED)) {
      parts.push(text.slice(last, found.index), math(found[0], false));
      last = found.index + found[0].length;
    }
    return [...parts, text.slice(last)];
  };
  return (text) => { // text -> nodes and strings, for append()
    const parts = [];
    let last = 0;
    for (const found of text.matchAll(MATH)) {
      parts.push(...plain(text.slice(last, found.index)));
      const [, dollars, brackets, parentheses, dollar, bare] = found;
      parts.push(math(dollars ?? brackets ?? parentheses ?? dollar ?? bare, dollar === undefined && parentheses === undefined));
      last = found.index + found[0].length;
    }
    return [...parts, ...plain(text.slice(last))];
  };
})();
