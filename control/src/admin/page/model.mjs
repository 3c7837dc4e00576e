// What the page says, made of the answers of /v1/dashboard: plain words and numbers, without the page. Every field of an
// answer that anything here needs is read in this file.
//
// Counters only grow, so rates and percentiles are those between two answers. A few answers of the last minutes are kept for
// that; the seconds of the charts are counted by ringway itself, and are there from the first answer on.

import { bucketsSince, bytes, count, doublings, evenness, micros, percent, percentile, rate, since, span, sum } from './numbers.mjs';

const MINUTE = 60;
const KEPT_EVENTS = 256;
const KEPT_POINTS = 300;
/** Of an endpoint, as the configuration has it. */
const WEIGHT_MOST = 256;
/** Endpoints named in one problem; the others stand below. */
const NAMED = 8;
export const PHASES = {
  total: 'All of it',
  head: 'Request head',
  queue: 'Waiting for a place',
  lost: 'Attempts in vain',
  connect: 'Connecting',
  response: 'Until the origin answers',
  transfer: 'Passing the answer on',
};
/** Limits that are meant to be full or cost nothing but copies, and the answer's own. */
const CALM_LIMITS = ['cluster.pool.idle', 'PIPES', 'ADMIN_CONNECTIONS', 'PROBES_AT_ONCE'];
/** Ends of connections that nobody needs to look into. */
const CALM_CLOSES = ['client_closed', 'keep_alive_ended', 'idle_timeout', 'tunnel_ended', 'drained', 'lifetime', 'origin_answered_close', 'killed'];
const ORDER = { bad: 0, warn: 1, note: 2 };
const TROUBLE = ['endpoint_down', 'ejected', 'breaker_opened', 'breaker_opened_by_trial', 'breaker_opened_by_silence'];

/** In the place of what takes two answers, while there is one. */
const PENDING = '…';

const has = (object, field) => Object.hasOwn(object, field);
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

export class Model {
  #readings = [];
  #events = [];
  #points = [];
  #answer = null;

  /** What the next question has behind its "?". */
  question(find) {
    const after = { events_after: this.#events.at(-1)?.number ?? 0, history_after: this.#points.at(-1)?.at_ms ?? 0 };
    return new URLSearchParams(find ? { ...after, find } : after).toString();
  }

  /** Takes an answer. True if it is of another process than the one before it, whose events and seconds are still to come. */
  take(answer) {
    const before = this.#answer?.process;
    const other = before !== undefined && (before.pid !== answer.process.pid || before.began !== answer.process.began);
    if (other) [this.#readings, this.#events, this.#points] = [[], [], []];
    this.#answer = answer;
    if (!other) {
      this.#events = this.#events.concat(answer.events).slice(-KEPT_EVENTS);
      this.#points = this.#points.concat(answer.history).slice(-KEPT_POINTS);
    }
    const named = (rows, name = 'name') => new Map(rows.map((row) => [row[name], row]));
    this.#readings.push({
      at: answer.process.uptime_ms,
      listeners: named(answer.listeners),
      clusters: new Map(answer.clusters.map((row) => [row.name, { row, endpoints: named(row.endpoints) }])),
      refusals: named(answer.refusals, 'reason'),
      closes: named(answer.closes, 'reason'),
      losses: answer.losses,
      shards: answer.shards,
    });
    this.#thin();
    return other;
  }

  /** Keeps one reading a second for 15 s, then one in 5 s for 65 s, then one in 20 s for 5 minutes. */
  #thin() {
    const now = this.#readings.at(-1).at;
    let newer = Infinity;
    const kept = [];
    for (const reading of this.#readings.toReversed()) {
      const age = now - reading.at;
      const apart = age <= 15e3 ? 0 : age <= 65e3 ? 5e3 : 20e3;
      if (age > 325e3 || newer - reading.at < apart) continue;
      kept.push(reading);
      newer = reading.at;
    }
    this.#readings = kept.toReversed();
  }

  /**
   * The reading of so many seconds ago, or the oldest; and how long ago that is. 0 is the start of the process: no reading. `two`
   * is false while there is but one, which nothing has grown since.
   */
  #before(seconds) {
    const now = this.#readings.at(-1).at;
    if (seconds === 0) return { reading: null, seconds: Math.max(1, now / 1000), two: true };
    const old = this.#readings.findLast((reading) => reading.at <= now - seconds * 1000 + 500);
    const reading = old ?? this.#readings[0];
    return { reading, seconds: Math.max(1, (now - reading.at) / 1000), two: reading !== this.#readings.at(-1) };
  }

  get page() {
    return this.#answer?.process.page;
  }

  /** Everything that is shown. `chosen` are the seconds and the subject that latencies are wanted of. */
  view(chosen) {
    const { process } = this.#answer;
    const clusters = this.#clusters();
    const problems = this.#problems(clusters);
    return {
      process: `${process.version} · pid ${process.pid} · up ${span(process.uptime_ms)}`,
      began: process.began,
      lead: this.#lead(problems),
      actions: [this.#answer.drain.node ? { ...abort('the node', { node: true }), label: 'Call off drain' } : drainNode(sum(this.#answer.listeners.map((row) => row.connections)))],
      problems,
      cards: this.#cards(),
      listeners: this.#listeners(),
      listenersLeftOut: this.#answer.listeners_left_out,
      times: this.#times(chosen),
      refusals: this.#reasons('refusals'),
      closes: this.#reasons('closes'),
      clusters: clusters.filter((one) => one.found),
      clustersLeftOut: this.#answer.clusters_left_out,
      shards: this.#shards(),
      limits: this.#limits(),
      events: this.#shownEvents(),
    };
  }

  /** Wall time of a moment since the process began, milliseconds. */
  #wall(atMs) {
    const { now, uptime_ms } = this.#answer.process;
    return Date.parse(now) - (uptime_ms - atMs);
  }

  #ago(wallMs) {
    return Math.max(0, Date.parse(this.#answer.process.now) - wallMs);
  }

  /** The newest event of one of these kinds about an object. */
  #event(kinds, cluster, endpoint) {
    return this.#events.findLast(
      (one) => kinds.includes(one.event) && one.cluster === cluster && (has(one, 'endpoint') ? one.endpoint : null) === endpoint,
    );
  }

  #sinceEvent(event) {
    if (!event) return { since: '', sinceMs: 0 };
    const at = Date.parse(event.time);
    return { since: span(this.#ago(at)), sinceMs: at };
  }

  // --- endpoints and clusters --------------------------------------------------------------------------------------

  #clusters() {
    const before = this.#before(10);
    const drained = this.#answer.drain.clusters.map((one) => one.name);
    return this.#answer.clusters.map((row) => {
      const old = before.reading.clusters.get(row.name);
      const tiers = row.endpoints.filter((one) => one.usable).map((one) => one.priority);
      const tier = Math.min(...tiers);
      const drains = drained.includes(row.name);
      const left = row.active + row.backup;
      const all = row.endpoints.length + row.endpoints_left_out;
      const endpoints = row.endpoints.map((one) => this.#endpoint(row, one, { old, before, tier, drains, left }));
      const requests = since(row.answers, old?.row.answers);
      const response = row.times.response ?? [];
      const recent = bucketsSince(response, (this.#before(MINUTE).reading.clusters.get(row.name)?.row.times.response ?? response));
      const shut = row.breaker !== 'closed';
      const tone = left === 0 || shut ? (drains ? 'note' : 'bad') : endpoints.some((one) => one.tone === 'bad') ? 'warn' : 'good';
      return {
        name: row.name,
        found: row.found,
        tone,
        drains,
        shut,
        breaker: row.breaker,
        queued: row.queued,
        left,
        all,
        endpoints,
        leftOut: row.endpoints_left_out,
        facts: [
          `${row.balance.replaceAll('_', ' ')}`,
          `${before.two ? rate(sum(Object.values(requests)) / before.seconds) : PENDING} requests/s`,
          `${before.two ? rate(requests['5xx'] / before.seconds) : PENDING} 5xx/s`,
          `p99 to the first byte ${before.two ? micros(percentile(recent, 0.99)) : PENDING}`,
        ].concat(row.queued ? [`${plural(row.queued, 'request')} wait`] : []),
        actions: [drains ? abort(`cluster ${row.name}`, { cluster: row.name }) : drainCluster(row.name)],
        use: drains ? 'drains' : shut ? `breaker ${row.breaker}` : `${left} of ${all} in use`,
      };
    });
  }

  #endpoint(cluster, one, { old, before, tier, drains, left }) {
    const attempts = since(one.attempts, old?.endpoints.get(one.name)?.attempts);
    const all = sum(Object.values(attempts));
    const bad = sum(['5xx', 'connect_failed', 'lost', 'timeout', 'invalid'].map((result) => attempts[result] ?? 0));
    const check = has(one, 'check') ? one.check : null;
    const state = this.#state(cluster.name, one, check, { tier, drains });
    const { since: time, sinceMs } = this.#sinceEvent(state.event);
    const name = `${cluster.name}/${one.name}`;
    const address = one.address === one.name ? '' : one.address;
    return {
      name: one.name,
      full: name,
      address,
      word: state.word,
      tone: state.tone,
      why: state.why,
      since: time,
      sinceMs,
      state: one.state,
      weight: `${one.weight}`,
      running: count(one.running),
      links: count(one.links),
      requests: before.two ? rate(all / before.seconds) : PENDING,
      failed: all ? percent(bad / all) : before.two ? '–' : PENDING,
      failing: all > 0 && bad / all >= 0.01,
      check: check ? `${check.result === state.why ? '' : `${check.result}, `}${span(check.ago_ms)} ago` : 'unchecked',
      actions: endpointActions(cluster.name, one, left, drains),
    };
  }

  /** What an endpoint is in a word, why, and the event that says since when. */
  #state(cluster, one, check, { tier, drains }) {
    const said = () => this.#event(['endpoint_state'], cluster, one.name);
    const trouble = () => this.#event(TROUBLE, cluster, one.name);
    const why = (event) => (event && has(event, 'reason') ? event.reason : event ? words(event.message) : '');
    if (drains) return { word: 'cluster drains', tone: 'note', why: 'an operator drains the cluster', event: null };
    if (one.state === 'maint') return { word: 'taken down', tone: 'note', why: 'by an operator', event: said() };
    if (one.state === 'drain') return { word: 'drains', tone: 'note', why: 'by an operator', event: said() };
    if (one.eligible === 'no: down') {
      return { word: 'down', tone: 'bad', why: check?.result ?? why(trouble()), event: trouble() };
    }
    if (one.ejected) return { word: 'ejected', tone: 'bad', why: why(trouble()), event: trouble() };
    if (one.eligible === 'no: breaker open') return { word: 'breaker open', tone: 'bad', why: why(trouble()), event: trouble() };
    if (!one.usable && one.weight === 0) return { word: 'weight 0', tone: 'note', why: 'by the configuration', event: null };
    if (!one.usable) return { word: one.eligible, tone: 'bad', why: why(trouble()), event: trouble() };
    if (one.eligible === 'one trial') return { word: 'on trial', tone: 'warn', why: one.breaker, event: trouble() };
    if (one.health === 'going down') return { word: 'checks fail', tone: 'warn', why: check?.result ?? '', event: null };
    return { word: one.priority > tier ? 'standby' : 'in use', tone: 'good', why: '', event: null };
  }

  // --- what is wrong -----------------------------------------------------------------------------------------------

  #problems(clusters) {
    const found = [];
    const tell = (tone, key, title, rest) => found.push({ tone, key, title, since: '', why: '', actions: [], lines: [], ...rest });
    this.#drains(tell);
    for (const cluster of clusters) this.#clusterProblems(cluster, tell);
    this.#failures(tell);
    const of = (limit) => (limit.of ? ` of ${limit.of}` : '');
    for (const limit of this.#answer.limits) {
      if (limit.percent < 90 || CALM_LIMITS.includes(limit.limit)) continue;
      const tone = limit.percent >= 100 ? 'bad' : 'warn';
      const title = limit.percent >= 100 ? `${limit.limit}${of(limit)} is reached` : `${limit.limit}${of(limit)} is nearly reached`;
      tell(tone, `limit ${limit.limit} ${limit.of}`, title, { why: `${count(limit.used)} of ${count(limit.most)}` });
    }
    const starved = sum(this.#answer.shards.map((shard) => shard.starved));
    if (starved) tell('warn', 'starved', `${plural(starved, 'receive')} wait for a buffer`, { why: 'buffers run short: see runtime.buffers' });
    const lost = since(this.#answer.losses, this.#before(MINUTE).reading.losses);
    const lines = lost.ring_full + lost.not_written + lost.process_log;
    if (lines) tell('warn', 'losses', 'Log lines are lost', { why: `${count(lines)} in the last minute, requests go on` });
    if (this.#answer.short) tell('note', 'short', 'The rings are smaller than they should be', { why: this.#answer.short });
    const { waits, drift } = this.#answer;
    if (waits.length) tell('note', 'waits', 'Changes of the file wait for an upgrade or a restart', { why: waits.join(', ') });
    if (drift.length) tell('note', 'drift', 'What runs is not what the file says', { why: `changed at run time: ${drift.join(', ')}` });
    return found.sort((a, b) => ORDER[a.tone] - ORDER[b.tone]);
  }

  #drains(tell) {
    const { node, listeners, clusters } = this.#answer.drain;
    if (node) {
      const left = node.phase === 'drained' ? 'nothing is left' : `${plural(node.connections, 'connection')} left, at most ${span(node.left_s * 1000)} more`;
      tell('warn', 'drain', `The node drains (${node.reason})`, {
        since: span(node.since_s * 1000),
        why: `${node.phase}: ${left}`,
        actions: [abort('the node', { node: true })],
      });
    }
    for (const one of listeners) {
      const called = one.reason === 'reload' ? [] : [abort(`listener ${one.name}`, { listener: one.name })];
      const why = `${one.phase}: ${plural(one.connections, 'connection')} left (${one.reason})`;
      tell('note', `drain listener ${one.name}`, `Listener ${one.name} drains`, { why, actions: called });
    }
    for (const one of clusters) {
      const why = `${one.phase}: ${count(one.running)} running`;
      tell('note', `drain cluster ${one.name}`, `Cluster ${one.name} drains`, { why, actions: [abort(`cluster ${one.name}`, { cluster: one.name })] });
    }
  }

  #clusterProblems(cluster, tell) {
    if (cluster.drains) return;
    const line = (one) => ({ key: one.full, text: one.full, word: one.word, since: one.since, why: one.why, actions: one.actions });
    const bad = cluster.endpoints.filter((one) => one.tone === 'bad' || one.tone === 'warn');
    const down = bad.map(line);
    const said = cluster.endpoints.filter((one) => one.state !== 'ready');
    const put = said.map(line);
    if (cluster.left === 0 || cluster.shut) {
      const event = this.#event(['cluster_empty'], cluster.name, null) ?? this.#event(TROUBLE, cluster.name, null);
      const why = cluster.all === 0 ? 'it has no endpoints' : cluster.shut ? `its circuit breaker is ${cluster.breaker}` : event && has(event, 'reason') ? event.reason : '';
      tell('bad', `cluster ${cluster.name}`, `${cluster.name} has nothing to send requests to`, {
        since: this.#sinceEvent(event).since,
        ...named(why, down.concat(put)),
      });
      return;
    }
    if (down.length) {
      const word = down.every((one) => one.word === down[0].word) ? down[0].word : 'in trouble';
      tell('warn', `endpoints ${cluster.name}`, `${cluster.name}: ${down.length} of ${plural(cluster.all, 'endpoint')} ${word}`, named('', down));
    }
    if (put.length) tell('note', `said ${cluster.name}`, `${cluster.name}: ${plural(put.length, 'endpoint')} out of use by an operator`, named('', put));
    if (cluster.queued) {
      tell('warn', `queue ${cluster.name}`, `${plural(cluster.queued, 'request')} wait for a place at ${cluster.name}`, { why: 'every endpoint is at its limit' });
    }
  }

  /** Whether what failed in the last minute is worth a look, since when it goes on, and the likeliest reason. */
  #failures(tell) {
    const minute = this.#points.slice(-MINUTE);
    const failed = sum(minute.map((point) => point.failed));
    const all = Math.max(failed, sum(minute.map((point) => point.requests)));
    if (failed < 5 || failed / all < 0.01) return;
    let first = this.#points.length - 1;
    for (let at = first, quiet = 0; at >= 0 && quiet <= 10; at -= 1) {
      quiet = this.#points[at].failed > 0 ? 0 : quiet + 1;
      if (quiet === 0) first = at;
    }
    const whole = first === 0 && this.#points.length === KEPT_POINTS;
    const ago = (at) => span(this.#ago(this.#wall(this.#points[at].at_ms)));
    const last = this.#points.findLastIndex((point) => point.failed > 0);
    const over = this.#points.length - last > 3;
    const reasons = this.#reasons('refusals').filter((row) => row.recent > 0 && row.status >= 500).slice(0, 3);
    const why = reasons.length ? `: ${reasons.map((row) => row.reason.replaceAll('_', ' ')).join(', ')}` : ', answered so by origins';
    if (over) {
      tell('note', 'failures', `${percent(failed / all)} of requests failed, and no longer do`, { why: `${count(failed)} in the last minute, the last ${ago(last)} ago${why}` });
      return;
    }
    tell(failed / all >= 0.1 ? 'bad' : 'warn', 'failures', `${percent(failed / all)} of requests fail`, {
      since: `${whole ? 'more than ' : ''}${ago(first)}`,
      why: `${count(failed)} in the last minute${why}`,
    });
  }

  #lead(problems) {
    const wrong = problems.filter((one) => one.tone !== 'note');
    const tone = wrong[0]?.tone ?? 'good';
    const title = wrong.length === 0 ? 'All is well' : wrong.length === 1 ? 'One thing is wrong' : `${wrong.length} things are wrong`;
    const minute = this.#points.slice(-MINUTE);
    const failed = sum(minute.map((point) => point.failed));
    const facts = [
      `${count(this.#answer.endpoints_in_use)} of ${plural(this.#answer.endpoints, 'endpoint')} in use`,
      `${this.#points.length ? rate(mean(this.#points.slice(-3).map((point) => point.requests))) : PENDING} requests/s`,
      failed ? `${count(failed)} failed in the last minute` : 'nothing failed in the last minute',
    ];
    return { tone, title, text: facts.join(' · ') };
  }

  // --- numbers -----------------------------------------------------------------------------------------------------

  #cards() {
    const now = this.#points.at(-1)?.at_ms ?? 0;
    const long = now - (this.#points[0]?.at_ms ?? now) > 60e3;
    const line = (field, tone) => ({ tone, points: this.#points.map((point) => [(point.at_ms - now) / 1000, point[field]]) });
    const recent = (field) => mean(this.#points.slice(-3).map((point) => point[field]).filter((value) => value !== null));
    const p = (field) => this.#points.findLast((point) => point[field] !== null)?.[field] ?? null;
    const per = (format, field) => (this.#points.length ? format(recent(field)) : PENDING);
    const card = (title, number, text, format, lines) => {
      const most = Math.max(0, ...lines.flatMap((one) => one.points.map(([, y]) => y ?? 0)));
      return { title, number, text, lines, most, scale: format(most), seconds: long ? 300 : 60, over: long ? '5 min' : '1 min' };
    };
    return [
      card('Requests a second', per(rate, 'requests'), `${per(rate, 'failed')} fail`, rate, [line('requests', 'one'), line('failed', 'bad')]),
      card('Latency, p99', micros(p('p99_us')), `half within ${micros(p('p50_us'))}`, (us) => micros(Math.round(us)), [line('p99_us', 'one'), line('p50_us', 'two')]),
      card('Open connections', count(this.#points.at(-1)?.connections ?? 0), `${per(rate, 'accepted')} new a second`, count, [line('connections', 'one')]),
      card('Bytes a second', per(bytes, 'sent'), `to clients; ${per(bytes, 'received')} from them`, bytes, [line('sent', 'one'), line('received', 'two')]),
    ];
  }

  #listeners() {
    const before = this.#before(10);
    return this.#answer.listeners.map((row) => {
      const old = before.reading.listeners.get(row.name);
      const answers = since(row.answers, old?.answers);
      const per = (now, then) => (old ? Math.max(0, now - then) / before.seconds : 0);
      const shown = (format, now, then) => (before.two ? format(per(now, then)) : PENDING);
      const total = row.times.total;
      const recent = bucketsSince(total, this.#before(MINUTE).reading.listeners.get(row.name)?.times.total ?? total);
      return {
        name: row.name,
        address: (row.bound.length ? row.bound : row.addresses).join(', '),
        protocol: row.leaving ? `${row.protocol}, leaving` : row.protocol,
        connections: count(row.connections),
        share: row.connections / row.max_connections,
        most: count(row.max_connections),
        accepted: shown(rate, row.accepted, old?.accepted),
        requests: shown(rate, row.requests, old?.requests),
        failed: shown(rate, row.failed, old?.failed),
        failing: per(row.failed, old?.failed) > 0,
        answers: ['2xx', '3xx', '4xx', '5xx', 'none'].map((kind) => [kind, answers[kind]]),
        unanswered: before.two ? 'none' : PENDING,
        p99: before.two ? micros(percentile(recent, 0.99)) : PENDING,
        sent: `${shown(bytes, row.sent_bytes, old?.sent_bytes)}/s`,
        received: `${shown(bytes, row.received_bytes, old?.received_bytes)}/s`,
        actions: this.#listenerActions(row),
      };
    });
  }

  /** None where the node drains, or it leaves because a file has it no more. */
  #listenerActions(row) {
    const { node, listeners } = this.#answer.drain;
    const drain = listeners.find((one) => one.name === row.name);
    if (drain) return drain.reason === 'reload' ? [] : [abort(`listener ${row.name}`, { listener: row.name })];
    return node || row.leaving ? [] : [drainListener(row)];
  }

  /** Percentiles of each phase of a listener or cluster (`of`, as "listener edge"), and the shape of the whole. */
  #times({ of, seconds }) {
    const { listeners, clusters } = this.#answer;
    const subjects = listeners.map((row) => [`listener ${row.name}`, row, (old) => old.listeners.get(row.name)]);
    const behind = clusters.map((row) => [`cluster ${row.name}`, row, (old) => old.clusters.get(row.name)?.row]);
    const all = subjects.concat(behind);
    const busiest = subjects.toSorted((a, b) => b[1].requests - a[1].requests)[0];
    const [name, row, find] = all.find(([subject]) => subject === of) ?? busiest ?? all[0] ?? ['', null, null];
    const before = this.#before(seconds);
    const shown = { subjects: all.map(([subject]) => subject), of: name, over: seconds === 0 ? `since the start, ${span(before.seconds * 1000)}` : before.two ? `the last ${span(before.seconds * 1000)}` : 'as soon as there is a second answer' };
    if (!row) return { ...shown, phases: [], bars: [] };
    const old = before.reading ? find(before.reading) : { times: {} };
    const grown = (phase) => bucketsSince(row.times[phase], old ? old.times[phase] ?? [] : row.times[phase]);
    const phases = Object.keys(PHASES).filter((phase) => has(row.times, phase)).map((phase) => {
      const buckets = grown(phase);
      const at = (share) => (before.two ? micros(percentile(buckets, share)) : PENDING);
      const all = before.two ? count(sum(buckets.map(([, n]) => n))) : PENDING;
      return { phase, title: PHASES[phase], count: all, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999) };
    });
    const bars = doublings(grown('total'));
    const most = Math.max(1, ...bars.map(([, n]) => n));
    return { ...shown, phases, bars: bars.map(([us, n]) => ({ key: us, label: micros(us), count: count(n), share: n / most })) };
  }

  /** Refusals, or ends of connections, those of the last minute first. */
  #reasons(kind) {
    const before = this.#before(MINUTE);
    const rows = this.#answer[kind].map((row) => {
      const old = before.reading[kind].get(row.reason)?.count ?? 0;
      const status = has(row, 'status') ? row.status : null;
      const calm = kind === 'closes' && CALM_CLOSES.includes(row.reason);
      const recent = Math.max(0, row.count - old);
      return { reason: row.reason, meaning: row.meaning, status, recent, shown: before.two ? count(recent) : PENDING, all: row.count, calm };
    });
    return rows.toSorted((a, b) => a.calm - b.calm || b.recent - a.recent || b.all - a.all);
  }

  #shards() {
    const before = this.#before(10);
    const rows = this.#answer.shards.map((row) => {
      const old = before.reading.shards[row.shard];
      const cpu = row.cpu_ms === null ? null : Math.max(0, row.cpu_ms - old.cpu_ms) / 1000 / before.seconds;
      return { row, cpu, requests: Math.max(0, row.requests - old.requests) / before.seconds };
    });
    const uneven = (numbers) => {
      const factor = evenness(numbers);
      return factor === null ? '–' : `${factor.toFixed(2)} ×`;
    };
    const most = Math.max(1, ...rows.map(({ row }) => row.connections));
    return {
      text: rows.length < 2 ? 'One shard.' : 'The busiest, of what all have on average: ' + [
        `connections ${uneven(rows.map(({ row }) => row.connections))}`,
        `requests ${before.two ? uneven(rows.map((one) => one.requests)) : PENDING}`,
        `CPU time ${before.two ? uneven(rows.map((one) => one.cpu ?? 0)) : PENDING}`,
      ].join(', ') + '. 1.00 × is even.',
      rows: rows.map(({ row, cpu, requests }) => ({
        shard: `${row.shard}`,
        connections: count(row.connections),
        share: row.connections / most,
        links: count(row.links),
        requests: before.two ? rate(requests) : PENDING,
        cpu: cpu === null ? '–' : before.two ? percent(cpu) : PENDING,
        cpuShare: Math.min(1, cpu ?? 0),
        queued: count(row.queued),
        buffers: row.buffers.map((one) => `${count(one.all - one.free)} of ${count(one.all)} ${one.size}`).join(', '),
      })),
    };
  }

  /** Those that are used at all, and the first few in any case. */
  #limits() {
    const rows = this.#answer.limits.filter((row, at) => row.percent >= 1 || at < 6);
    return rows.map((row) => ({
      key: `${row.limit} ${row.of}`,
      limit: row.limit,
      of: row.of,
      use: `${count(row.used)} of ${count(row.most)}`,
      share: Math.min(1, row.percent / 100),
      percent: percent(row.percent / 100),
      tone: row.percent < 75 || CALM_LIMITS.includes(row.limit) ? 'good' : row.percent < 90 ? 'note' : row.percent < 100 ? 'warn' : 'bad',
    }));
  }

  #shownEvents() {
    return this.#events.toReversed().map((event) => ({
      key: event.number,
      time: event.time,
      ago: `${span(this.#ago(Date.parse(event.time)))} ago`,
      tone: TROUBLE.includes(event.event) || event.event === 'cluster_empty' ? 'bad' : event.event === 'endpoint_state' ? 'note' : 'good',
      kind: event.event.replaceAll('_', ' '),
      text: event.message,
    }));
  }
}

/** The first of many lines, and a word about the others. */
function named(why, lines) {
  const more = lines.length > NAMED ? `the first ${NAMED} of ${lines.length}, the others stand below` : '';
  return { why: [why, more].filter(Boolean).join('; '), lines: lines.slice(0, NAMED) };
}

function mean(numbers) {
  return numbers.length ? sum(numbers) / numbers.length : 0;
}

/** An event's line without the name in front of it. */
function words(message) {
  return message.replace(/^[^:]*?: (?=ejected|its|readmitted)/, '').replace(/^endpoint \S+: /, '');
}

// --- what may be done ------------------------------------------------------------------------------------------------

function endpointActions(cluster, one, left, drains) {
  const name = `${cluster}/${one.name}`;
  const path = `/v1/clusters/${encodeURIComponent(cluster)}/endpoints/${encodeURIComponent(one.name)}`;
  const others = left - (one.usable ? 1 : 0);
  const rest = others === 0
    ? `No other endpoint is in use: requests to ${cluster} will be refused.`
    : `The other ${others === 1 ? 'endpoint' : `${others} endpoints`} in use get${others === 1 ? 's' : ''} its share.`;
  const runs = one.running ? ` ${plural(one.running, 'request')} that run there end by themselves.` : '';
  const to = (state, label, title, text, tone) => ({
    label, title: `${title} ${name}?`, text, tone,
    asks: ['PUT', `${path}/state`, { state }],
    done: `${name} is ${{ drain: 'draining', maint: 'taken down', ready: 'back' }[state]}.`,
  });
  const grave = one.usable && others === 0 ? 'bad' : 'warn';
  const all = [{ label: 'Check', probe: name, asks: ['POST', `${path}/probe`, {}] }];
  all.push({
    label: 'Weight', yes: 'Set it', title: `Another weight of ${name}?`, tone: 'warn',
    text: `Its share of requests is its weight as a part of all weights that are in use; with 0 it gets none that does not stick to it. It is changed at run time, beside the file, until a restart or until the file says something else of it.`,
    number: { name: 'weight', label: `Weight, 0 to ${WEIGHT_MOST}`, value: one.weight, most: WEIGHT_MOST },
    asks: ['PUT', `${path}/weight`, {}],
    done: `${name} has another weight.`,
  });
  if (one.state !== 'ready') all.push(to('ready', 'Put back', 'Put back', `It gets new requests again${one.health === 'down' ? ' once checks find it up' : ''}.`, 'good'));
  if (one.state !== 'drain' && !drains) all.push(to('drain', 'Drain', 'Drain', `It keeps clients that stick to it and gets no others. ${rest}${runs}`, grave));
  if (one.state !== 'maint' && !drains) all.push(to('maint', 'Take down', 'Take down', `It gets nothing any more, of clients that stick to it neither. ${rest}${runs}`, grave));
  return all;
}

function drainNode(open) {
  return {
    label: 'Drain node', title: 'Drain the whole node?', tone: 'bad',
    text: `First /ready fails, then no new connections are taken, and the ${plural(open, 'connection')} that are open leave, within the time that drain.rebalance has. The process stays, and it can be called off.`,
    asks: ['POST', '/v1/drain', { node: true }],
    done: 'The node drains.',
  };
}

function drainListener(row) {
  return {
    label: 'Drain', title: `Drain listener ${row.name}?`, tone: 'warn',
    text: `It takes no new connections, and the ${plural(row.connections, 'connection')} that it has leave, within the time that drain.rebalance has. It stays closed, over reloads too, until that is called off. The other listeners go on.`,
    asks: ['POST', '/v1/drain', { listener: row.name }],
    done: `Listener ${row.name} drains.`,
  };
}

function drainCluster(name) {
  return {
    label: 'Drain', title: `Drain cluster ${name}?`, tone: 'bad',
    text: 'No request is sent there any more: those that routes send there are refused, but where a route asks whether it is available. What runs there ends by itself, however long that takes.',
    asks: ['POST', '/v1/drain', { cluster: name }],
    done: `Cluster ${name} drains.`,
  };
}

function abort(what, scope) {
  return {
    label: 'Call off', title: `Call off the drain of ${what}?`, text: 'Connections that are left stay, and new ones are taken again.', tone: 'good',
    asks: ['POST', '/v1/drain', { ...scope, abort: true }],
    done: `The drain of ${what} is called off.`,
  };
}

/** The rows of a page of /v1/connections, sorted. */
export function connectionRows(answer, by) {
  const key = { age: 'age_ms', quiet: 'quiet_ms', requests: 'requests', up: 'up_bytes', down: 'down_bytes' }[by];
  const value = (row) => (has(row, key) ? row[key] : 0) ?? 0;
  const text = (row, field) => (has(row, field) ? row[field] ?? '' : '');
  return answer.connections.toSorted((a, b) => value(b) - value(a)).map((row) => {
    const cluster = text(row, 'cluster');
    const endpoint = text(row, 'endpoint');
    return {
      id: row.id,
      state: row.state,
      peer: text(row, 'peer'),
      local: text(row, 'local'),
      listener: row.listener,
      to: endpoint ? `${cluster}/${endpoint}` : cluster,
      age: span(row.age_ms),
      quiet: span(row.quiet_ms),
      requests: count(row.requests),
      up: has(row, 'up_bytes') && row.up_bytes !== null ? bytes(row.up_bytes) : '–',
      down: has(row, 'down_bytes') && row.down_bytes !== null ? bytes(row.down_bytes) : '–',
      kill: {
        label: 'Close', title: `Close connection ${row.id}?`, tone: 'warn',
        text: `Of ${text(row, 'peer') || 'its client'}, at ${row.listener}. It is reset at once, and what runs on it is aborted.`,
        asks: ['DELETE', `/v1/connections/${encodeURIComponent(row.id)}`, {}],
        done: `Connection ${row.id} is closed.`,
      },
    };
  });
}
