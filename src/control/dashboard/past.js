// How things were and are: the gateway's own samples, one a second, and sums over them.

import { follow, get } from "./api.js";

const KEPT = 900;

export const past = {
  /** Who speaks: node, boot, version, driver, shards, since when. */
  head: null,
  samples: [],
  /** What the gateway's clock is ahead of this machine's. */
  ahead_ms: 0,
};

export function gatewayNow() { return Date.now() + past.ahead_ms; }

/** Keeps `past` true. */
export function followPast({ onChange, onState }) {
  follow({
    resumes: false,
    // After a pause or a restart the gateway knows better what was: it is asked each time.
    start: async () => {
      const head = await get("/v1/stats/history");
      past.samples = head.samples;
      delete head.samples;
      past.head = head;
      past.ahead_ms = head.now_unix_ms - Date.now();
      onChange();
      return "/v1/stats/stream";
    },
    onEvent: (sample) => {
      if (sample.n <= (past.samples.at(-1)?.n ?? 0)) return;
      past.samples.push(sample);
      if (past.samples.length > KEPT) past.samples.shift();
      onChange();
    },
    onState,
  });
}

/** The samples since `from`. */
export function since(from) {
  return past.samples.filter((sample) => sample.at_unix_ms > from);
}

/** How often sessions ended for each reason, the most frequent first. */
export function wentByReason(samples) {
  const sums = new Map();
  for (const sample of samples) {
    for (const [reason, count] of Object.entries(sample.went)) {
      sums.set(reason, (sums.get(reason) ?? 0) + count);
    }
  }
  return [...sums].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
}

export function went(sample) {
  return Object.values(sample.went).reduce((sum, count) => sum + count, 0);
}

/** Verdicts by how late they came. */
export function lateness(samples) {
  const sums = new Array((past.head?.late_bounds_ms.length ?? 0) + 1).fill(0);
  for (const sample of samples) sample.late.forEach((count, at) => { sums[at] += count; });
  return sums;
}

/** The bound in milliseconds that this share of the verdicts kept; null without any. */
export function quantile(buckets, share) {
  const all = buckets.reduce((sum, count) => sum + count, 0);
  let left = all * share;
  for (let at = 0; all > 0 && at < buckets.length; at += 1) {
    left -= buckets[at];
    if (left <= 0) return past.head.late_bounds_ms[at] ?? Infinity;
  }
  return null;
}

/** A sum over samples by the second. */
export function perSecond(samples, value) {
  const ms = samples.reduce((sum, sample) => sum + sample.span_ms, 0);
  if (ms === 0) return null;
  return samples.reduce((sum, sample) => sum + value(sample), 0) * 1000 / ms;
}
