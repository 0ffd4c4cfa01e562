// The problems behind every number: filtered, sorted and opened one by one, built when asked for.
const browser = (() => {
  const place = document.getElementById('browser');
  const read = (id) => JSON.parse(document.getElementById(id)?.textContent || 'null');
  const data = place && read('counts');
  if (!data) return null;
  let texts = null; // completions are parsed when the first one is looked at
  const shown = () => (texts ??= read('texts') || {});
  const STEP = 50;
  const FRESH = { set: '', min: 1, bin: '', verdict: '', test: '', deciding: '', q: '', k: data.k, sort: 'order', down: 0, id: '' };
  let state = { ...FRESH }, limit = STEP;
  const opened = new Set();

  const make = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === 'class') made.className = value;
      else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null) made.setAttribute(key, value === true ? '' : value);
    }
    made.append(...children);
    return made;
  };
  const passAt = (n, c, k) => {
    let failure = 1;
    for (let i = 0; i < k && failure > 0; i += 1) failure *= Math.max(0, n - c - i) / (n - i);
    return 1 - failure;
  };
  const percent = (value) => (value === 0 || value === 1 ? `${100 * value}%`
    : `${(100 * value).toPrecision(value >= 0.0995 ? 3 : 2)}%`);
  const problems = data.problems.map(([id, n, c, low, high, exact, adjusted, odd], order) => (
    { id, n, c, low, high, exact, adjusted, odd: odd || {}, order }));
  const setOf = (problem, least) => {
    if (!data.pair) return problem.c[0] >= least ? 'solved' : 'unsolved';
    const [a, b] = data.pair.map((model) => problem.c[model] >= least);
    return a && b ? 'both' : a ? 'base_only' : b ? 'rl_only' : 'neither';
  };
  const binOf = (n, c) => (c === n ? 11 : Math.ceil((10 * c) / n));
  const deciding = (problem) => data.pair && data.pair.some((m) => problem.c[m] > 0 && problem.c[m] <= data.deciding);
  const points = (x) => { // a difference that rounds to zero has no sign
    const text = (100 * Math.abs(x)).toFixed(1);
    return `${text === '0.0' ? '' : x > 0 ? '+' : '−'}${text}`;
  };
  const change = (problem) => {
    const [a, b] = data.pair.map((m) => passAt(problem.n[m], problem.c[m], state.k));
    return b - a;
  };
  const searched = (problem) => {
    if (problem.text === undefined) {
      const entry = shown()[problem.id];
      problem.text = [problem.id, ...(entry ? [entry[0], entry[1], ...entry[2].flatMap((one) => [one[2], one[5], one[6], one[7]])] : [])]
        .join('\n').toLowerCase();
    }
    return problem.text;
  };
  const fits = (problem) => {
    if (state.id && problem.id !== state.id) return false;
    if (state.set && setOf(problem, state.min) !== state.set) return false;
    if (state.deciding && String(Number(deciding(problem))) !== state.deciding) return false;
    if (state.bin) {
      const [model, bin] = state.bin.split(':').map(Number);
      if (binOf(problem.n[model], problem.c[model]) !== bin) return false;
    }
    if (state.verdict) {
      const [model, verdict] = state.verdict.split(':');
      if (!(problem.odd[model]?.[verdict] > 0)) return false;
    }
    if (state.test) {
      const [a, b] = data.pair, rise = problem.c[b] / problem.n[b] - problem.c[a] / problem.n[a];
      if (!(problem.adjusted <= data.rate && (state.test === 'better' ? rise > 0 : rise < 0))) return false;
    }
    return !state.q || searched(problem).includes(state.q.toLowerCase());
  };
  const keyOf = (problem) => {
    const [what, model] = state.sort.split(':');
    if (what === 'c') return problem.c[model] / problem.n[model];
    if (what === 'pass') return passAt(problem.n[model], problem.c[model], state.k);
    if (what === 'exact') return problem.exact?.[model] ?? -1;
    if (what === 'change') return change(problem);
    if (what === 'set') return data.order.indexOf(setOf(problem, state.min));
    if (what === 'p') return problem.adjusted ?? 2;
    return what === 'id' ? problem.id : problem.order;
  };
  const chosen = () => {
    const rows = problems.filter(fits).map((problem) => [keyOf(problem), problem]);
    const sign = Number(state.down) ? -1 : 1;
    rows.sort(([a, x], [b, y]) => sign * (typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b) || x.order - y.order);
    return rows.map(([, problem]) => problem);
  };

  const columns = () => [
    ['id', 'problem'],
    ...data.models.flatMap((name, m) => [
      [`c:${m}`, `${name} correct`],
      ...(state.k > 1 ? [[`pass:${m}`, `${name} pass@${state.k}`]] : []),
      ...(data.exact[m] ? [[`exact:${m}`, `${name} exact`]] : []),
    ]),
    ...(data.pair ? [['change', `change, pass@${state.k}`], ['set', 'coverage']] : []),
    ...(data.tested ? [['p', 'adjusted p']] : []),
  ];
  const cells = (problem) => [
    ...data.models.flatMap((_, m) => [
      `${problem.c[m]}/${problem.n[m]}`,
      ...(state.k > 1 ? [percent(passAt(problem.n[m], problem.c[m], state.k))] : []),
      ...(data.exact[m] ? [percent(problem.exact[m])] : []),
    ]),
    ...(data.pair ? [points(change(problem)),
      data.sets[setOf(problem, state.min)]] : []),
    ...(data.tested ? [problem.adjusted === null ? '–' : problem.adjusted < 0.001 ? '< 0.001' : problem.adjusted.toFixed(3)] : []),
  ];
  const text = (value, source) => make('pre', {}, ...(source ? [value] : renderMath(value)));
  const completion = ([model, sample, verdict, length, cut, extracted, reason, body], source) => [
    make('h4', {}, `${data.models[model]} `, make('small', {}, `sample ${sample}, ${length} tokens${cut ? ', cut at the length limit' : ''} `),
      make('span', { class: `verdict ${verdict}` }, verdict)),
    text(body, source),
    ...(extracted || reason ? [make('p', { class: 'note' }, ...(extracted ? ['Read as ', make('code', {}, extracted), reason ? ': ' : '.'] : []), reason)] : []),
  ];
  const detail = (problem) => {
    const entry = shown()[problem.id], box = make('div', { class: 'detail' });
    const fill = (source) => {
      box.replaceChildren();
      const rates = data.models.map((name, m) => make('li', {}, `${name}: ${problem.c[m]} of ${problem.n[m]} correct, solve rate `
        + `${percent(problem.c[m] / problem.n[m])} (${percent(problem.low[m])} to ${percent(problem.high[m])})`
        + Object.entries(problem.odd[m] || {}).map(([verdict, count]) => `, ${count} ${verdict}`).join('')));
      box.append(make('ul', { class: 'rates' }, ...rates));
      if (!entry) {
        box.append(make('p', { class: 'note' }, 'Its completions are in the store beside the report; they were left out here to keep the file small.'));
        return;
      }
      const [prompt, answer, completions, images = []] = entry;
      const toggle = make('input', { type: 'checkbox', checked: source, onchange: (event) => fill(event.target.checked) });
      box.append(make('label', { class: 'note' }, toggle, ' show TeX as written'));
      const shownImages = images.map((image, i) => (image.startsWith('data:image/')
        ? make('img', { src: image, alt: `image ${i + 1} of problem ${problem.id}`, class: 'problem-image' })
        : make('p', { class: 'note' }, image)));
      if (images.length) box.append(make('div', { class: 'problem-images' }, ...shownImages));
      if (prompt) box.append(make('h4', {}, 'Prompt'), text(prompt, source));
      if (answer) box.append(make('p', { class: 'note' }, 'Reference: ', make('code', {}, answer)));
      box.append(...completions.flatMap((one) => completion(one, source)));
      if (!completions.length) box.append(make('p', { class: 'note' }, 'Its completions are in the store beside the report.'));
    };
    fill(false);
    return box;
  };

  const option = (value, label, current) => make('option', { value, selected: String(value) === String(current) }, label);
  const address = () => { // the view, so that it can be sent to someone
    const changed = Object.entries(state).filter(([key, value]) => String(value) !== String(FRESH[key]));
    try {
      history.replaceState(null, '', `#problems?${new URLSearchParams(changed)}`);
    } catch { /* where a page may not change its address, the view still works */ }
  };
  const set = (changes) => { state = { ...state, ...changes }; limit = STEP; draw(); address(); };
  const controls = make('div', { class: 'controls' }), list = make('div', { class: 'scroll' }), count = make('p', { class: 'note', role: 'status' });
  const more = make('button', { type: 'button', onclick: () => { limit += 2 * STEP; draw(); } }, 'Show more');
  const reset = make('button', { type: 'button', onclick: () => { set({ ...FRESH }); build(); draw(); } }, 'Clear');
  let sets, thresholds;
  const build = () => {
    let waiting = 0;
    const search = make('input', { type: 'search', id: 'find', placeholder: 'problem, answer, text', value: state.q,
      oninput: (event) => { clearTimeout(waiting); waiting = setTimeout(() => set({ q: event.target.value }), 120); } });
    sets = make('select', { id: 'set', onchange: (event) => set({ set: event.target.value }) });
    thresholds = make('select', { id: 'min', onchange: (event) => set({ min: Number(event.target.value) }) },
      ...[1, 2, 3, 5].map((t) => option(t, `at least ${t}`, state.min)));
    const ks = make('select', { id: 'k', onchange: (event) => set({ k: Number(event.target.value) }) },
      ...data.ks.map((k) => option(k, `k = ${k}`, state.k)));
    controls.replaceChildren(make('label', {}, 'Search ', search), make('label', {}, 'Solved by ', sets),
      make('label', {}, 'Correct samples ', thresholds), make('label', {}, 'pass@k at ', ks), reset);
  };
  const spoken = () => {
    const words = [];
    if (state.bin) {
      const [model, bin] = state.bin.split(':');
      words.push(`share of ${data.models[model]}'s samples that are correct: ${data.bins[bin]}`);
    }
    if (state.verdict) words.push(`with a ${state.verdict.split(':')[1]} of ${data.models[state.verdict.split(':')[0]]}`);
    if (state.test) words.push(`solve rate ${state.test === 'better' ? 'up' : 'down'} by the per-problem tests`);
    if (state.deciding) words.push(`${state.deciding === '1' ? 'only' : 'without'} problems that a few samples decide`);
    if (state.id) words.push(`problem ${state.id}`);
    return words.length ? ` (${words.join('; ')})` : '';
  };
  const draw = () => {
    const rows = chosen(), heads = columns();
    const sizes = {};
    for (const problem of problems) sizes[setOf(problem, state.min)] = (sizes[setOf(problem, state.min)] || 0) + 1;
    sets.replaceChildren(option('', `all (${problems.length})`, state.set),
      ...data.order.map((name) => option(name, `${data.sets[name]} (${sizes[name] || 0})`, state.set)));
    thresholds.value = String(state.min);
    count.textContent = `${rows.length} of ${problems.length} problems${spoken()}`;
    const body = make('tbody');
    for (const problem of rows.slice(0, limit)) {
      const row = make('tr'), below = make('tr', { class: 'below', hidden: true });
      const open = (yes) => {
        button.setAttribute('aria-expanded', String(yes));
        below.hidden = !yes;
        if (yes && !below.firstChild) below.append(make('td', { colspan: heads.length }, detail(problem)));
        opened[yes ? 'add' : 'delete'](problem.id);
      };
      const button = make('button', { type: 'button', 'aria-expanded': 'false', onclick: () => open(below.hidden) }, problem.id);
      row.append(make('td', {}, button), ...cells(problem).map((cell) => make('td', { class: 'n' }, cell)));
      body.append(row, below);
      if (opened.has(problem.id) || state.id === problem.id) open(true);
    }
    const head = make('tr', {}, ...heads.map(([key, name]) => make('th', { scope: 'col',
      'aria-sort': state.sort === key ? (Number(state.down) ? 'descending' : 'ascending') : false },
    make('button', { type: 'button', onclick: () => set({ sort: key, down: state.sort === key ? 1 - state.down : Number(key !== 'id' && key !== 'p' && key !== 'set') }) }, name))));
    list.replaceChildren(make('table', {}, make('thead', {}, head), body));
    more.hidden = rows.length <= limit;
    more.textContent = `Show more (${Math.max(0, rows.length - limit)} left)`;
  };
  const fromAddress = () => {
    const [where, query] = location.hash.slice(1).split('?');
    if (where !== 'problems' || query === undefined) return;
    state = { ...FRESH };
    for (const [key, value] of new URLSearchParams(query)) if (key in FRESH) state[key] = value;
    for (const key of ['min', 'k', 'down']) state[key] = Number(state[key]);
    limit = STEP;
    build();
    draw();
    document.getElementById('problems').scrollIntoView();
  };
  window.addEventListener('hashchange', fromAddress);
  document.addEventListener('click', (event) => { // again the same link: the address does not change
    const link = event.target.closest?.('a[href^="#problems?"]');
    if (link && link.getAttribute('href') === location.hash) fromAddress();
  });
  place.append(controls, count, list, more);
  build();
  draw();
  fromAddress();
  return { set, state: () => state };
})();
