/** Where the failing service can be told to end itself, and how. */
export const FAIL_POINTS = [
  /** The rule has decided, inside the transaction. */
  'before-commit',
  /** The change is stored, its caller has no answer. */
  'before-answer',
  /** The sink has the first half of a batch, or nothing where there is one event only. */
  'within-batch',
  /** The sink has the batch, the store does not know. */
  'before-mark',
  /** The leadership is taken or renewed, the replica does not know. */
  'while-leading',
] as const;
export type FailPoint = (typeof FAIL_POINTS)[number];

export type Order =
  /** Dies when it comes there for the `nth` time from now on. */
  | { readonly order: 'die'; readonly at: FailPoint; readonly nth: number }
  /** The wall clock is off by so much from now on, and the monotonic one runs so many times as fast as it should. */
  | { readonly order: 'clock'; readonly offsetMs: number; readonly rate?: number }
  /** Nothing runs for so long, and meanwhile the monotonic clock stands still: a machine that sleeps. */
  | { readonly order: 'sleep'; readonly ms: number }
  /** The next time that memory may answer, nothing runs for so long before it does. */
  | { readonly order: 'hesitate'; readonly ms: number }
  /** The next rule that decides on a change holds its replica up for so long, inside the transaction. */
  | { readonly order: 'ponder'; readonly ms: number }
  /** From now on a record that is looked up by its digest is handed over so long after it was read. */
  | { readonly order: 'slow-reads'; readonly ms: number }
  /** Writes a `Report` with this number as a line of its log. */
  | { readonly order: 'report'; readonly report: number }
  /** The store cannot be reached for so long. */
  | { readonly order: 'store-away'; readonly ms: number }
  /** For so long the sink takes half of what it is given and fails. */
  | { readonly order: 'sink-fails'; readonly ms: number };

/** How a replica stands. */
export interface Report {
  readonly report: number;
  /** Whether its memory may answer. */
  readonly holds: boolean;
  /** How often it has looked up a record in the store, since it was started. */
  readonly reads: number;
}
