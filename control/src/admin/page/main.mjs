// Asks once a second while the page is seen, one question at a time, and does what is pressed.

import { say, show } from './draw.mjs';
import { Model, connectionRows } from './model.mjs';
import { span, wall } from './numbers.mjs';
import * as parts from './parts.mjs';

const at = (id) => document.getElementById(id);
const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const PROBE_PATIENCE_MS = 60_000;
const TOKEN = 'ringway-token';
const OWN_PAGE = document.querySelector('meta[name=page]').content;

const model = new Model();
let [asking, timer, answered, missed, news, wrong] = [false, 0, 0, 0, 0, ''];

/** Why there is no answer, or none of use. */
class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

async function ask(method, path, body, patience = PATIENCE_MS) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const asked = { method, headers, cache: 'no-store', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(patience) };
  if (method !== 'GET') headers['Content-Type'] = 'application/json';
  if (body !== undefined && method !== 'DELETE' && method !== 'GET') asked.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, asked);
  } catch (error) {
    throw new Refused(0, error.name === 'TimeoutError' ? 'it took too long' : 'nobody answers');
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || answer === null) throw new Refused(response.status, answer?.error ?? `status ${response.status}`);
  return answer;
}

// --- what is shown -------------------------------------------------------------------------------------------------

const chosen = () => ({ of: at('times-of').value, seconds: Number(at('times-over').value) });

async function poll() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  const began = performance.now();
  try {
    const answer = await ask('GET', `/v1/dashboard?${model.question(at('find').value.trim())}`);
    const other = model.take(answer);
    if (answer.process.page !== OWN_PAGE && !document.querySelector('dialog[open]')) {
      location.reload();
      return;
    }
    if (other) tell('Another process answers now: it was restarted, or upgraded. Its counters begin anew.', 10_000);
    [answered, missed] = [Date.now(), 0];
    redraw();
    live('live', 'live');
    banner('');
  } catch (error) {
    // A mistake of ours is to be seen, and not to be taken for a lost process.
    missed += 1;
    if (error instanceof Refused) lost(error);
    else {
      banner(`This page has a mistake: ${error.message}. Load it anew, or use ringway status.`);
      reportError(error);
    }
  } finally {
    asking = false;
    const every = missed === 1 ? EVERY_MS / 5 : EVERY_MS;
    timer = setTimeout(poll, Math.max(100, every - (performance.now() - began)));
  }
}

function redraw() {
  const view = model.view(chosen());
  parts.render(view, act);
  document.body.classList.remove('waits', 'lost');
  const count = view.problems.filter((one) => one.tone !== 'note').length;
  document.title = `${count ? `(${count}) ${view.problems[0].title}` : 'well'} · ringway ${location.host}`;
  const keys = view.problems.map((one) => one.key).join('\n');
  if (keys !== wrong) say(at('said'), view.problems.length ? view.problems.map((one) => one.title).join('. ') : view.lead.title);
  wrong = keys;
}

function lost(error) {
  if (error.status === 401) {
    live('lost', 'locked');
    banner('Reading needs the token too.');
    if (!document.querySelector('dialog[open]') && !sessionStorage.getItem(TOKEN)) askToken('Reading needs the token of admin.token here. It stays in this tab, until you close it.');
    return;
  }
  // One may be a kept connection that ended: it is asked again at once.
  if (missed < 2) return;
  live('lost', 'lost');
  document.body.classList.toggle('lost', answered > 0);
  const since = answered ? ` What is shown is ${span(Date.now() - answered)} old.` : '';
  document.title = `lost · ringway ${location.host}`;
  banner(`No answer from ringway: ${error.message}.${since} It is asked again each second.`);
}

function live(kind, text) {
  at('live').dataset.kind = kind;
  say(at('live'), text);
}

function banner(text) {
  say(at('banner'), text);
  show(at('banner'), text !== '');
}

/** Says something for a while, also to those who hear the page. */
function tell(text, ms = 6000) {
  clearTimeout(news);
  say(at('news'), text);
  show(at('news'), text !== '');
  say(at('said'), text);
  if (ms) news = setTimeout(() => show(at('news'), false), ms);
}

// --- what is pressed -----------------------------------------------------------------------------------------------

/** Asks whether to, does it, and says what came of it. A number that is asked for goes into what is sent, by its name. */
async function act(action) {
  if (action.probe) return probe(action);
  if (!(await confirmed(action))) return;
  const [method, path, body] = action.asks;
  const given = action.number ? { [action.number.name]: at('ask-number').valueAsNumber } : {};
  try {
    await ask(method, path, { ...body, ...given });
    tell(action.done);
  } catch (error) {
    if (error.status === 401) return askToken('This needs the token of admin.token. It stays in this tab, until you close it.', action);
    tell(`Not done: ${error.message}.`, 15_000);
  }
  if (action.then) action.then();
  poll();
}

async function probe(action) {
  tell(`Checking ${action.probe} …`, PROBE_PATIENCE_MS);
  let shown;
  try {
    shown = await ask(...action.asks, PROBE_PATIENCE_MS);
  } catch (error) {
    if (error.status === 401) return askToken('A check by hand needs the token of admin.token. It stays in this tab, until you close it.', action);
    return tell(`Not checked: ${error.message}.`, 15_000);
  }
  tell('', 0);
  const lines = (sign, text) => text.split('\\n').filter(Boolean).map((line) => `${sign} ${line}\\n`);
  const bytes = [...lines('>', shown.sent), ...lines('<', shown.received)].join('\n');
  await confirmed({ title: `${action.probe}: ${shown.verdict}`, text: `Took ${shown.took_ms.toFixed(1)} ms. It changes nothing of what ringway thinks of the endpoint.`, bytes });
}

/** Shows a question; true if it is confirmed. Without a label there is nothing to confirm, with a number there is one to give. */
function confirmed({ title, text, label = '', yes: word = label, tone = 'good', bytes = '', number = null }) {
  const [dialog, yes, no] = [at('ask'), at('ask-yes'), at('ask-no')];
  say(at('ask-title'), title);
  say(at('ask-text'), text);
  say(at('ask-bytes'), bytes);
  show(at('ask-bytes'), bytes !== '');
  say(yes, word);
  show(yes, label !== '');
  yes.dataset.tone = tone;
  say(no, label ? 'Cancel' : 'Close');
  const field = at('ask-number');
  show(at('ask-field'), number !== null);
  field.disabled = number === null;
  field.required = number !== null;
  say(at('ask-label'), number?.label ?? '');
  if (number) [field.max, field.value] = [number.most, number.value];
  dialog.returnValue = '';
  dialog.showModal();
  if (number) field.select();
  else no.focus();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }));
}

/** Asks for the token; what was pressed is asked about again then. */
function askToken(text, action) {
  say(at('token-text'), text);
  at('token-input').value = '';
  at('token-dialog').returnValue = '';
  at('token-dialog').showModal();
  const done = () => {
    if (at('token-dialog').returnValue !== 'yes') return;
    poll();
    if (action) act(action);
  };
  at('token-dialog').addEventListener('close', done, { once: true });
}

async function list(event) {
  event?.preventDefault();
  const asked = new URLSearchParams({ limit: '200' });
  for (const name of ['listener', 'cluster', 'source']) {
    const value = at(`c-${name}`).value.trim();
    if (value) asked.set(name, value);
  }
  try {
    const answer = await ask('GET', `/v1/connections?${asked}`);
    const rows = connectionRows(answer, at('c-by').value);
    for (const row of rows) row.kill.then = list;
    const more = answer.next ? ' There are more: these are the first that the shards found.' : '';
    const noun = rows.length === 1 ? 'connection' : 'connections';
    parts.connections(rows, `${rows.length} ${noun} at ${wall(Date.now())}.${more}`, act);
  } catch (error) {
    if (error.status === 401) return askToken('Reading needs the token of admin.token here.');
    parts.connections([], `No list: ${error.message}.`, act);
  }
}

say(at('host'), location.host);
at('ask-form').addEventListener('submit', (event) => {
  event.preventDefault();
  at('ask').close('yes');
});
at('ask-no').addEventListener('click', () => at('ask').close());
at('token-no').addEventListener('click', () => at('token-dialog').close());
at('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = at('token-input').value.trim();
  at('token-input').value = '';
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
  at('token-dialog').close('yes');
});
at('token-button').addEventListener('click', () => askToken('What changes something needs the content of the file of admin.token, where the configuration has one. It stays in this tab, until you close it; an empty one is forgotten.'));
at('connections-form').addEventListener('submit', list);
at('c-by').addEventListener('change', () => at('connections-table').parentElement.hidden || list());
for (const id of ['times-of', 'times-over']) at(id).addEventListener('change', () => model.page && redraw());
at('find').addEventListener('input', poll);
document.addEventListener('visibilitychange', poll);
poll();
