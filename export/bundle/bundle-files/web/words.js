// Numbers as people read them.

/** 0.973 as "97.3 %". */
export function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** 0.655 seconds as "0.66 s", 10.24 as "10.2 s". */
export function seconds(length) {
  return `${length.toPrecision(length < 1 ? 2 : 3)}\u00a0s`;
}

/** 83.4 seconds as "1:23.4". */
export function time(seconds) {
  const tenths = Math.round(10 * seconds);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}
