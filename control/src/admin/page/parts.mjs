// The parts of the page: each function puts what the model says where it belongs.

import { chart, draw, field, fill, h, keyed, meter, row, say, show } from './draw.mjs';
import { count, wall } from './numbers.mjs';

const at = (id) => document.getElementById(id);

/** Everything but connections. `act` is called with what a button is to do. */
export function render(view, act) {
  say(at('process'), view.process);
  field(at('process'), 'title', `since ${wall(view.began)}`);
  lead(view.lead);
  problems(view.problems, act);
  cards(view.cards);
  buttons(at('node-acts'), view.actions, act, '');
  listeners(view.listeners, act);
  say(at('listeners-more'), view.listenersLeftOut ? `and ${view.listenersLeftOut} more` : '');
  clusters(view.clusters, act);
  say(at('clusters-more'), view.clustersLeftOut ? `${view.clustersLeftOut} more: find them by name` : '');
  times(view.times);
  reasons(at('refusals'), view.refusals, true);
  reasons(at('closes'), view.closes, false);
  shards(view.shards);
  limits(view.limits);
  events(view.events);
  choices(at('c-listener'), view.listeners);
  choices(at('c-cluster'), view.clusters);
}

function lead({ tone, title, text }) {
  field(at('lead'), 'data-tone', tone);
  field(at('light'), 'data-tone', tone);
  say(at('now-title'), title);
  say(at('now-text'), text);
}

/** Buttons for what may be done, made once for each label. */
function buttons(node, actions, act, of) {
  const make = () => {
    const parts = { node: h('button', { type: 'button' }) };
    parts.node.addEventListener('click', () => act(parts.action));
    return parts;
  };
  const had = node.contains(document.activeElement);
  keyed(node, actions, (one) => one.label, make, (parts, action) => {
    parts.action = action;
    say(parts.node, action.label);
    field(parts.node, 'aria-label', `${action.label} ${of}`.trim());
  });
  // What was pressed may be gone: whoever uses the keyboard goes on from what stands in its place.
  if (had && !node.contains(document.activeElement)) node.firstElementChild?.focus({ preventScroll: true });
}

function problems(all, act) {
  const line = () => {
    const parts = { name: h('strong'), pill: h('span', { class: 'pill' }), why: h('span', { class: 'why' }), since: h('span', { class: 'quiet' }), acts: h('span', { class: 'acts' }) };
    return { ...parts, node: h('li', {}, h('span', { class: 'what' }, parts.name, ' ', parts.pill, ' ', parts.why, ' ', parts.since), parts.acts) };
  };
  const make = () => {
    const parts = { title: h('h3'), since: h('span', { class: 'quiet' }), why: h('p', { class: 'why' }), acts: h('div', { class: 'acts' }), lines: h('ul') };
    return { ...parts, node: h('article', { class: 'problem' }, h('div', { class: 'head' }, parts.title, parts.since, parts.acts), parts.why, parts.lines) };
  };
  const had = at('problems').contains(document.activeElement);
  keyed(at('problems'), all, (one) => one.key, make, (parts, one) => {
    field(parts.node, 'data-tone', one.tone);
    say(parts.title, one.title);
    say(parts.since, one.since && `for ${one.since}`);
    say(parts.why, one.why);
    show(parts.why, one.why !== '');
    buttons(parts.acts, one.actions, act, one.title);
    show(parts.lines, one.lines.length > 0);
    keyed(parts.lines, one.lines, (entry) => entry.key, line, (of, entry) => {
      say(of.name, entry.text);
      say(of.pill, entry.word);
      field(of.pill, 'data-tone', one.tone);
      say(of.why, entry.why);
      say(of.since, entry.since && `for ${entry.since}`);
      buttons(of.acts, entry.actions, act, entry.text);
    });
  });
  if (had && !at('problems').contains(document.activeElement)) at('now').focus({ preventScroll: true });
}

function cards(all) {
  const make = (one) => {
    const parts = { number: h('p', { class: 'number' }), text: h('p', { class: 'quiet' }), scale: h('span'), over: h('span'), chart: chart(one.title) };
    const axis = h('p', { class: 'axis' }, parts.scale, parts.over);
    return { ...parts, node: h('article', { class: 'card' }, h('h3', {}, one.title), parts.number, parts.text, parts.chart.node, axis) };
  };
  keyed(at('cards'), all, (one) => one.title, make, (parts, one) => {
    say(parts.number, one.number);
    say(parts.text, one.text);
    say(parts.scale, `most ${one.scale}`);
    say(parts.over, one.over);
    draw(parts.chart, one);
    field(parts.chart.node, 'aria-label', `${one.title}: ${one.number} now, ${one.scale} at most in the last ${one.over}`);
  });
}

/** A place for buttons in a cell. */
function inner(cell) {
  const place = h('span', { class: 'acts' });
  cell.append(place);
  return place;
}

const LISTENER = [['name', 'Listener'], ['connections', 'Connections', 'span'], ['accepted', 'New/s', 'n'], ['requests', 'Requests/s', 'n'], ['failed', 'Failed/s', 'n'], ['answers', 'Answers', 'span'], ['p99', 'p99', 'n'], ['sent', 'Sent', 'n'], ['received', 'Received', 'n'], ['acts', 'Actions', 'wide-acts']];

function listeners(all, act) {
  const make = () => {
    const parts = row(LISTENER);
    parts.title = h('span');
    parts.small = h('small', { class: 'quiet' });
    parts.name.append(parts.title, parts.small);
    parts.meter = meter(parts.connections);
    parts.mix = h('span', { class: 'mix', 'aria-hidden': 'true' });
    parts.words = h('small', { class: 'quiet' });
    parts.answers.append(h('span', {}, parts.mix, parts.words));
    parts.acts = inner(parts.acts);
    return parts;
  };
  keyed(at('listeners'), all, (one) => one.name, make, (parts, one) => {
    say(parts.title, one.name);
    say(parts.small, `${one.protocol} ${one.address}`);
    fill(parts.meter.bar, one.share);
    say(parts.meter.text, `${one.connections} of ${one.most}`);
    for (const name of ['accepted', 'requests', 'failed', 'p99', 'sent', 'received']) say(parts[name], one[name]);
    field(parts.failed, 'data-tone', one.failing ? 'bad' : 'good');
    const whole = one.answers.reduce((sum, [, n]) => sum + n, 0);
    const there = one.answers.filter(([, n]) => n > 0);
    keyed(parts.mix, there, ([kind]) => kind, ([kind]) => ({ node: h('span', { class: `a${kind}` }) }), (piece, [, n]) => fill(piece.node, n / whole));
    const words = there.map(([kind, n]) => `${kind} ${((n / whole) * 100).toFixed(n / whole < 0.1 ? 1 : 0)} %`).join(', ');
    say(parts.words, words || one.unanswered);
    buttons(parts.acts, one.actions, act, `listener ${one.name}`);
  });
}

const ENDPOINT = [['name', 'Endpoint'], ['state', 'State', 'span'], ['running', 'Running', 'n'], ['links', 'Links', 'n'], ['requests', 'Requests/s', 'n'], ['failed', 'Failed', 'n'], ['weight', 'Weight', 'n'], ['check', 'Last check', 'span'], ['acts', 'Actions', 'wide-acts']];

function clusters(all, act) {
  const endpoint = () => {
    const parts = row(ENDPOINT);
    parts.title = h('span');
    parts.small = h('small', { class: 'quiet' });
    parts.name.append(parts.title, parts.small);
    parts.pill = h('span', { class: 'pill' });
    parts.why = h('small', { class: 'why' });
    parts.state.append(h('span', {}, parts.pill, parts.why));
    parts.acts = inner(parts.acts);
    return parts;
  };
  const make = (one) => {
    const parts = { title: h('h3'), pill: h('span', { class: 'pill' }), facts: h('p', { class: 'quiet' }), more: h('p', { class: 'quiet' }), acts: h('span', { class: 'acts' }) };
    parts.rows = h('tbody', { role: 'rowgroup' });
    const heads = ENDPOINT.map(([, label, kind = '']) => h('th', { scope: 'col', role: 'columnheader', class: kind }, label));
    const table = h('table', { class: 'stack', role: 'table', 'aria-label': `Endpoints of ${one.name}` }, h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...heads)), parts.rows);
    const scroll = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Endpoints of ${one.name}` }, table);
    return { ...parts, scroll, node: h('article', { class: 'cluster' }, h('div', { class: 'head' }, parts.title, parts.pill, parts.facts, parts.acts), scroll, parts.more) };
  };
  keyed(at('cluster-list'), all, (one) => one.name, make, (parts, one) => {
    say(parts.title, one.name);
    say(parts.pill, one.use);
    field(parts.pill, 'data-tone', one.tone);
    say(parts.facts, one.facts.join(' · '));
    buttons(parts.acts, one.actions, act, `cluster ${one.name}`);
    show(parts.scroll, one.endpoints.length > 0);
    say(parts.more, one.leftOut ? `${one.leftOut} more endpoints: find them by name` : one.all ? '' : 'No endpoints.');
    keyed(parts.rows, one.endpoints, (item) => item.name, endpoint, (cells, item) => {
      say(cells.title, item.name);
      say(cells.small, item.address);
      say(cells.pill, item.word);
      field(cells.pill, 'data-tone', item.tone);
      say(cells.why, [item.why, item.since && `for ${item.since}`].filter(Boolean).join(', '));
      for (const name of ['running', 'links', 'requests', 'failed', 'weight', 'check']) say(cells[name], item[name]);
      field(cells.failed, 'data-tone', item.failing ? 'bad' : 'good');
      buttons(cells.acts, item.actions, act, item.full);
    });
  });
}

const PHASE = [['title', 'Phase', 'name'], ['p50', 'p50', 'n'], ['p90', 'p90', 'n'], ['p99', 'p99', 'n'], ['p999', 'p99.9', 'n'], ['count', 'Count', 'n']];

function times({ subjects, of, over, phases, bars }) {
  const select = at('times-of');
  keyed(select, subjects, (one) => one, (one) => ({ node: h('option', { value: one }, one) }), () => {});
  if (select.value !== of && document.activeElement !== select) select.value = of;
  say(at('times-text'), over);
  keyed(at('phases'), phases, (one) => one.phase, () => row(PHASE), (parts, one) => {
    for (const [name] of PHASE) say(parts[name], one[name]);
  });
  const bar = () => {
    const parts = row([['label', 'Up to'], ['bar', 'Share', 'wide'], ['count', 'Count', 'n']]);
    parts.fill = h('span', { class: 'fill' });
    parts.bar.append(h('span', { class: 'meter', 'aria-hidden': 'true' }, parts.fill));
    return parts;
  };
  keyed(at('bars'), bars, (one) => one.key, bar, (parts, one) => {
    say(parts.label, one.label);
    say(parts.count, one.count);
    fill(parts.fill, one.share);
  });
}

function reasons(node, all, refusals) {
  const status = refusals ? [['status', 'Status', 'n']] : [];
  const make = () => {
    const parts = row([['name', 'Reason'], ...status, ['recent', 'Last minute', 'n'], ['all', 'In all', 'n']]);
    parts.title = h('span');
    parts.small = h('small', { class: 'quiet' });
    parts.name.append(parts.title, parts.small);
    return parts;
  };
  keyed(node, all, (one) => one.reason, make, (parts, one) => {
    say(parts.title, one.reason.replaceAll('_', ' '));
    say(parts.small, one.meaning.replaceAll('`', ''));
    if (refusals) say(parts.status, `${one.status}`);
    say(parts.recent, one.shown);
    say(parts.all, count(one.all));
    field(parts.recent, 'data-tone', one.recent && !one.calm ? (refusals && one.status < 500 ? 'warn' : 'bad') : 'good');
  });
  field(node.closest('table'), 'data-empty', all.length ? 'no' : 'yes');
}

const SHARD = [['shard', 'Shard'], ['connections', 'Connections', 'span'], ['cpu', 'CPU', 'span'], ['requests', 'Requests/s', 'n'], ['links', 'Links', 'n'], ['queued', 'Waiting', 'n'], ['buffers', 'Buffers in use', 'span']];

function shards({ text, rows }) {
  say(at('shards-text'), text);
  const make = () => {
    const parts = row(SHARD);
    return { ...parts, open: meter(parts.connections), time: meter(parts.cpu) };
  };
  keyed(at('shard-rows'), rows, (one) => one.shard, make, (parts, one) => {
    for (const name of ['shard', 'requests', 'links', 'queued', 'buffers']) say(parts[name], one[name]);
    fill(parts.open.bar, one.share);
    say(parts.open.text, one.connections);
    fill(parts.time.bar, one.cpuShare);
    say(parts.time.text, one.cpu);
  });
}

function limits(all) {
  const make = () => {
    const parts = row([['name', 'Limit'], ['used', 'Used', 'wide'], ['percent', 'Share', 'n'], ['use', 'Of', 'n']]);
    parts.title = h('span');
    parts.small = h('small', { class: 'quiet' });
    parts.name.append(parts.title, parts.small);
    parts.fill = h('span', { class: 'fill' });
    parts.used.append(h('span', { class: 'meter', 'aria-hidden': 'true' }, parts.fill));
    return parts;
  };
  keyed(at('limit-rows'), all, (one) => one.key, make, (parts, one) => {
    say(parts.title, one.limit);
    say(parts.small, one.of);
    fill(parts.fill, one.share);
    field(parts.fill, 'data-tone', one.tone);
    say(parts.percent, one.percent);
    say(parts.use, one.use);
  });
}

function events(all) {
  const make = (one) => {
    const parts = { pill: h('span', { class: 'pill', 'data-tone': one.tone }, one.kind), text: h('span'), time: h('time', { datetime: one.time, class: 'quiet' }) };
    return { ...parts, node: h('li', {}, h('span', { class: 'when quiet' }, wall(one.time)), parts.pill, parts.text, parts.time) };
  };
  keyed(at('event-rows'), all, (one) => one.key, make, (parts, one) => {
    say(parts.text, one.text);
    say(parts.time, one.ago);
  });
  show(at('events-none'), all.length === 0);
}

/** The names that connections may be asked for. */
function choices(select, all) {
  const any = { name: '' };
  keyed(select, [any, ...all], (one) => one.name, (one) => ({ node: h('option', { value: one.name }, one.name || 'any') }), () => {});
}

const CONNECTION = [['peer', 'Client'], ['state', 'State'], ['listener', 'Listener'], ['to', 'Goes to', 'span'], ['age', 'Age', 'n'], ['quiet', 'Silent', 'n'], ['requests', 'Requests', 'n'], ['up', 'From it', 'n'], ['down', 'To it', 'n'], ['acts', '', 'wide-acts']];

/** A page of connections. */
export function connections(rows, text, act) {
  say(at('connections-text'), text);
  show(at('connections-table').parentElement, rows.length > 0);
  const make = () => {
    const parts = row(CONNECTION);
    parts.title = h('span');
    parts.small = h('small', { class: 'quiet' });
    parts.peer.append(parts.title, parts.small);
    parts.acts = inner(parts.acts);
    return parts;
  };
  keyed(at('connection-rows'), rows, (one) => one.id, make, (parts, one) => {
    say(parts.title, one.peer);
    say(parts.small, `${one.id} at ${one.local}`);
    for (const [name] of CONNECTION.slice(1, -1)) say(parts[name], one[name]);
    buttons(parts.acts, [one.kill], act, `connection ${one.id}`);
  });
}
