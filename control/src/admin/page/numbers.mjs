// Numbers as people read them, and what is made of two readings of counters. Nothing here knows the page.

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** A whole number with its thousands apart. */
export function count(number) {
  return Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** Few digits: 0.3, 12, 3 400. */
export function rate(number) {
  if (number > 0 && number < 0.1) return '< 0.1';
  return number < 10 && number > 0 ? number.toFixed(1).replace(/\.0$/, '') : count(number);
}

export function bytes(number) {
  let unit = 0;
  while (number >= 1000 && unit < UNITS.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${UNITS[unit]}`;
}

/** How long something takes. */
export function micros(us) {
  if (us === null) return '–';
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${us < 1e4 ? (us / 1000).toFixed(1) : Math.round(us / 1000)} ms`;
  return us < 6e7 ? `${(us / 1e6).toFixed(us < 1e7 ? 1 : 0)} s` : span(us / 1000);
}

/** How long something has been so: its two largest units. */
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [days, hours, minutes] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${s % 60} s` : `${s} s`;
}

/** A moment by the clock of whoever looks; the day, where it is another than today. */
export function wall(time, today = new Date()) {
  const at = new Date(time);
  const clock = at.toLocaleTimeString('en-GB');
  if (at.toDateString() === today.toDateString()) return clock;
  return `${at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${clock}`;
}

/** A share, 0 to 1. */
export function percent(share) {
  const of = share * 100;
  if (of > 0 && of < 0.1) return '< 0.1 %';
  return `${of >= 10 || of === 0 ? Math.round(of) : of.toFixed(1)} %`;
}

/** What buckets hold now more than before: pairs of a bucket's longest time and its count. */
export function bucketsSince(now, before) {
  const known = new Map(before);
  const grown = now.map(([us, n]) => [us, Math.max(0, n - (known.get(us) ?? 0))]);
  return grown.filter(([, n]) => n > 0);
}

export function sum(numbers) {
  let all = 0;
  for (const number of numbers) all += number;
  return all;
}

/** So long took that share of them at most; null where there are none. Buckets hold times up to 25 % apart. */
export function percentile(buckets, share) {
  const wanted = Math.max(1, Math.ceil(sum(buckets.map(([, n]) => n)) * share));
  let below = 0;
  for (const [us, n] of buckets) {
    below += n;
    if (below >= wanted) return us;
  }
  return null;
}

/** The same counts in fewer buckets, of which each is twice as long as the one before it, without a gap. */
export function doublings(buckets) {
  const bars = new Map();
  for (const [us, n] of buckets) {
    const bound = Math.max(4, Math.ceil(Math.log2(us)));
    bars.set(bound, (bars.get(bound) ?? 0) + n);
  }
  if (bars.size === 0) return [];
  const [least, most] = [Math.min(...bars.keys()), Math.max(...bars.keys())];
  return Array.from({ length: most - least + 1 }, (_, at) => [2 ** (least + at), bars.get(least + at) ?? 0]);
}

/** How uneven: the largest over the mean, 1 where all are the same; null where there is nothing to compare. */
export function evenness(numbers) {
  const all = sum(numbers);
  return numbers.length < 2 || all === 0 ? null : (Math.max(...numbers) * numbers.length) / all;
}

/** Counters by name, now less before. Without a before, as of an object that was not shown then, nothing has grown. */
export function since(now, before) {
  const grown = {};
  for (const [name, n] of Object.entries(now)) grown[name] = before ? Math.max(0, n - (before[name] ?? 0)) : 0;
  return grown;
}
