// How nodes of the page are made and changed. Text only ever becomes text: there is no way here from a string to markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with fields and children; strings among these are text. */
export function h(name, fields = {}, ...children) {
  return dressed(document.createElement(name), fields, children);
}

function svg(name, fields = {}, ...children) {
  return dressed(document.createElementNS(SVG, name), fields, children);
}

function dressed(node, fields, children) {
  for (const [field, value] of Object.entries(fields)) node.setAttribute(field, value);
  node.append(...children);
  return node;
}

/** Says a text, if it is another than before: what did not change is not touched, so that it can be selected and read out. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function field(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** How much of a bar is full, 0 to 1. */
export function fill(node, share) {
  const width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  if (node.style.width !== width) node.style.width = width;
}

const known = new WeakMap();

/**
 * Has the children of a node be those of `items`: each is made once by its key and filled anew from then on, so that whoever
 * has the focus keeps it.
 */
export function keyed(parent, items, key, make, refresh) {
  const before = known.get(parent) ?? new Map();
  const now = new Map();
  const focused = document.activeElement;
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const parts = before.get(name) ?? make(item);
    before.delete(name);
    now.set(name, parts);
    refresh(parts, item);
    if (parts.node === at) at = at.nextElementSibling;
    else parent.insertBefore(parts.node, at);
  }
  for (const { node } of before.values()) node.remove();
  known.set(parent, now);
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** A row of a table: a head and cells, named as in `columns`: [name, label, kind]. `parts` has them by name. */
export function row(columns) {
  const parts = { node: h('tr', { role: 'row' }) };
  columns.forEach(([name, label, kind = ''], at) => {
    const cell = at === 0 ? h('th', { scope: 'row', role: 'rowheader' }) : h('td', { role: 'cell' });
    cell.dataset.label = label;
    if (kind) cell.className = kind;
    parts[name] = cell;
    parts.node.append(cell);
  });
  return parts;
}

/** A bar with a text beside it. */
export function meter(cell) {
  const bar = h('span', { class: 'fill' });
  const text = h('span', { class: 'meter-text' });
  cell.append(h('span', { class: 'metered' }, h('span', { class: 'meter', 'aria-hidden': 'true' }, bar), text));
  return { bar, text };
}

const [WIDTH, HEIGHT] = [300, 64];

/** A chart of the last minutes: up to two lines, of points that lie some seconds behind now. */
export function chart(title) {
  const lines = [svg('path', { class: 'area' }), svg('path', { class: 'line' }), svg('path', { class: 'line' })];
  const drawn = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': title }, ...lines);
  return { node: drawn, lines };
}

export function draw({ lines }, { lines: given, most, seconds }) {
  const top = most > 0 ? most * 1.08 : 1;
  const place = ([x, y]) => `${(WIDTH + (x * WIDTH) / seconds).toFixed(1)} ${(HEIGHT - 1 - (y / top) * (HEIGHT - 2)).toFixed(1)}`;
  given.forEach(({ points, tone }, at) => {
    let path = '';
    let open = false;
    for (const point of points) {
      if (point[1] !== null) path += `${open ? 'L' : 'M'}${place(point)}`;
      open = point[1] !== null;
    }
    field(lines[at + 1], 'class', `line ${tone}`);
    field(lines[at + 1], 'd', path);
    if (at === 0) {
      const all = points.filter(([, y]) => y !== null);
      const ends = all.length ? [place([all[0][0], 0]), place([all.at(-1)[0], 0])] : [];
      field(lines[0], 'd', all.length ? `M${ends[0]}L${all.map(place).join('L')}L${ends[1]}Z` : '');
    }
  });
}
