// Runs the dashboard's script over real answers, without a browser: node page.mjs FOLDER-OF-THE-PAGE ANSWERS. Answers are
// handed to it so that reading a field that is not there throws; what is drawn goes to a document of a few lines, in which
// text cannot become markup and markup cannot be written at all.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, file] = process.argv.slice(2);
const given = JSON.parse(readFileSync(file, 'utf8'));

// --- answers that know what was read ---------------------------------------------------------------------------------

/** Objects that are maps: of names that there may be or not. */
const MAPS = ['answers', 'times', 'attempts'];

function strict(value, path) {
  if (value === null || typeof value !== 'object') return value;
  const isMap = MAPS.includes(path.split('.').at(-1));
  return new Proxy(value, {
    get(target, name) {
      if (typeof name === 'string' && !Array.isArray(target) && !isMap && !(name in target)) {
        throw new Error(`${path}.${name} is read, and no answer has it`);
      }
      const inner = Reflect.get(target, name);
      return Array.isArray(target) && typeof name !== 'string' ? inner : strict(inner, Array.isArray(target) ? path : `${path}.${String(name)}`);
    },
  });
}

const answers = given.answers.map((answer, at) => strict(answer, `answer ${at}`));

// --- a document of a few lines ---------------------------------------------------------------------------------------

class Node {
  constructor(name) {
    Object.assign(this, { name, children: [], fields: {}, dataset: {}, style: {}, hidden: false, parentElement: null, own: null });
  }
  set innerHTML(_) { throw new Error('markup is written'); }
  set outerHTML(_) { throw new Error('markup is written'); }
  get textContent() { return this.own ?? this.children.map((child) => (typeof child === 'string' ? child : child.textContent)).join(''); }
  set textContent(text) {
    assert.equal(typeof text, 'string', `${text} is said in ${this.name}`);
    assert(!/undefined|NaN|null|\[object/.test(text), `it says ${text}`);
    Object.assign(this, { own: text, children: [] });
  }
  get className() { return this.fields.class; }
  set className(value) { this.fields.class = value; }
  get value() { return this.fields.value ?? ''; }
  set value(value) { this.fields.value = value; }
  append(...children) {
    for (const child of children) {
      assert(child instanceof Node || typeof child === 'string', `${child} is put into ${this.name}`);
      if (child instanceof Node) child.parentElement = this;
      this.children.push(child);
    }
  }
  setAttribute(field, value) {
    assert(!/^on|^style$|^href$|^src/.test(field), `${field} is set`);
    assert(!/undefined|NaN|\[object/.test(String(value)), `${field} is ${value}`);
    this.fields[field] = String(value);
  }
  getAttribute(field) { return this.fields[field] ?? null; }
  contains(node) { return node === this || this.children.some((child) => child instanceof Node && child.contains(node)); }
  addEventListener() {}
  closest(name) { return this.name === name ? this : (this.parentElement?.closest(name) ?? new Node(name)); }
  get firstElementChild() { return this.children.find((child) => child instanceof Node) ?? null; }
  get nextElementSibling() {
    const all = this.parentElement.children.filter((child) => child instanceof Node);
    return all[all.indexOf(this) + 1] ?? null;
  }
  insertBefore(node, before) {
    node.remove();
    const at = before ? this.children.indexOf(before) : this.children.length;
    this.children.splice(at, 0, node);
    node.parentElement = this;
  }
  remove() {
    const all = this.parentElement?.children;
    if (all?.includes(this)) all.splice(all.indexOf(this), 1);
  }
}

// As in the page: places are there by their ids, and a table is around each body.
const page = readFileSync(join(folder, 'index.html'), 'utf8');
const places = new Map([...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => [id, new Node('place')]));
for (const place of places.values()) new Node('table').append(place);
globalThis.document = {
  activeElement: null,
  createElement: (name) => new Node(name),
  createElementNS: (_, name) => new Node(name),
  getElementById: (id) => {
    assert(places.has(id), `the page has no ${id}`);
    return places.get(id);
  },
};

// --- what is tried ---------------------------------------------------------------------------------------------------

const load = (name) => import(pathToFileURL(join(folder, name)));
const numbers = await load('numbers.mjs');
const { Model, connectionRows } = await load('model.mjs');
const parts = await load('parts.mjs');

const everything = () => [...places.values()].map((place) => place.textContent).join('\n');
const model = new Model();
const seen = [];
for (const [at, answer] of answers.entries()) {
  // The last one is of another process: that is noticed, and its counters are held against nothing of the one before it.
  assert.equal(model.take(answer), at === 3, `answer ${at}`);
  for (const seconds of [10, 60, 300, 0]) {
    for (const of of ['', 'listener edge', 'cluster app', 'listener gone']) parts.render(model.view({ of, seconds }), () => {});
  }
  seen.push(everything());
}
assert(seen[0].includes(given.hostile), 'the hostile name is text like any other');
assert(seen[1].includes('Cluster other drains'), seen[1]);
assert(seen[2].includes('The node drains (rebalance)') && seen[2].includes('Listener db drains'), seen[2]);
assert(seen[3].includes('down') && seen[3].includes('One thing is wrong'), seen[3]);
assert(/Layer4 refused/.test(seen[3]), 'it says why');

// Every button asks the way that the guard wants, and names are quoted in paths.
const fresh = new Model();
fresh.take(answers[0]);
const { clusters, listeners, times, refusals, shards } = fresh.view({ of: '', seconds: 10 });
// One answer is no rate; two are.
const rates = (view) => [
  ...view.listeners.flatMap((one) => [one.accepted, one.requests, one.failed, one.p99, one.sent, one.received]),
  ...view.clusters.flatMap((one) => [...one.facts.slice(1, 4), ...one.endpoints.flatMap((of) => [of.requests, of.failed])]),
  ...view.times.phases.flatMap((one) => [one.p50, one.p90, one.p99, one.p999, one.count]),
  ...view.refusals.map((one) => one.shown),
  ...view.shards.rows.flatMap((one) => [one.requests, one.cpu]),
];
const pending = rates({ clusters, listeners, times, refusals, shards });
assert(pending.length > 20 && pending.every((text) => text.includes('…') || text === '–'), `${pending}`);
const known = new Model();
for (const answer of answers.slice(0, 2)) known.take(answer);
assert(rates(known.view({ of: '', seconds: 10 })).every((text) => !text.includes('…')));
const hostile = clusters.flatMap((cluster) => cluster.endpoints).find((one) => one.full.includes('<img'));
for (const action of hostile.actions) {
  const [method, path, body] = action.asks;
  assert(['PUT', 'POST'].includes(method) && typeof body === 'object', action.label);
  assert.match(path, /^\/v1\/clusters\/other\/endpoints\/[A-Za-z0-9%._~'()!*-]+\/(state|probe|weight)$/);
  assert(action.label === 'Check' || action.title.endsWith('?'), 'it is asked about first');
}

const rows = connectionRows(strict(given.connections, 'connections'), 'age');
assert.equal(rows.length, given.connections.connections.length);
parts.connections(rows, 'one', () => {});
assert.deepEqual(rows[0].kill.asks.slice(0, 2), ['DELETE', `/v1/connections/${given.connections.connections[0].id}`]);

// Percentiles, and what is made of two readings.
const { bucketsSince, bytes, count, doublings, evenness, micros, percent, percentile, rate, since, span, wall } = numbers;
assert.deepEqual([percentile([], 0.5), percentile([[10, 99], [20, 1]], 0.99), percentile([[10, 98], [20, 2]], 0.99)], [null, 10, 20]);
assert.deepEqual(bucketsSince([[10, 5], [20, 7]], [[10, 5], [20, 4]]), [[20, 3]]);
assert.deepEqual(doublings([[24, 1], [28, 2], [128, 3]]), [[32, 3], [64, 0], [128, 3]]);
assert.deepEqual([evenness([1, 3]), evenness([2, 2]), evenness([4]), evenness([0, 0])], [1.5, 1, null, null]);
assert.deepEqual([since({ a: 5 }, { a: 3 }), since({ a: 5 }, {}), since({ a: 5 }, undefined)], [{ a: 2 }, { a: 5 }, { a: 0 }]);
assert.deepEqual([count(1234567), rate(0), rate(0.04), rate(3.14), rate(1234)], ['1\u202f234\u202f567', '0', '< 0.1', '3.1', '1\u202f234']);
assert.deepEqual([micros(null), micros(320), micros(1536), micros(81920), micros(2.5e6), micros(9e7)], ['–', '320 µs', '1.5 ms', '82 ms', '2.5 s', '1 min 30 s']);
assert.deepEqual([bytes(0), bytes(999), bytes(1500), bytes(2.5e9)], ['0 B', '999 B', '1.5 kB', '2.5 GB']);
assert.deepEqual([span(0), span(61e3), span(3.7e6), span(9e7)], ['0 s', '1 min 1 s', '1 h 1 min', '1 d 1 h']);
assert.deepEqual([percent(0), percent(0.0001), percent(0.005), percent(0.5)], ['0 %', '< 0.1 %', '0.5 %', '50 %']);
assert.match(wall('2020-01-02T03:04:05Z'), /Jan .*:04:05$/);
console.log('all well');
