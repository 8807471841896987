/** What whoever configures a gateway must hear of: it comes with every request, and lets nobody in. */
import type { Log } from '../log.js';

export interface Mistake {
  /** Absent: it is not known whose. */
  readonly caller?: string;
  readonly reason: string;
  readonly rule?: string;
}

const MISTAKES_MAX = 1000;

/** Each once. */
export function warnOnce(log: Log): (mistake: Mistake) => void {
  const told = new Set<string>();
  return (mistake) => {
    const text = JSON.stringify(mistake);
    if (told.size >= MISTAKES_MAX || told.has(text)) return;
    told.add(text);
    log.warn(mistake, 'a gateway is configured wrong, and lets nobody in there');
  };
}
