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
  /** The wall clock is off by so much from now on. */
  | { readonly order: 'clock'; readonly offsetMs: number }
  /** The store cannot be reached for so long. */
  | { readonly order: 'store-away'; readonly ms: number }
  /** For so long the sink takes half of what it is given and fails. */
  | { readonly order: 'sink-fails'; readonly ms: number };
