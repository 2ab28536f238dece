/** When a story that is seen from outside begins: at the moment when the first request was sent. This file must not draw. */

export function arrivalsBegin({ requests, steps }) {
  const sent = requests.map((request) => request?.arrival ?? null).filter((at) => at !== null);
  return Math.min(...sent, steps[0]?.t ?? 0);
}
