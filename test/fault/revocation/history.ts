/**
 * What clients asked about access, and were told: what took it away, what gave it back, and every verification. Timed by
 * the clients' own monotonic clock. Credentials stay with the clients.
 */

/** How access is taken away. */
export const WAYS = ['revoke', 'revoke by name', 'rotate', 'disable', 'narrow', 'shorten', 'suspend'] as const;
export type Way = (typeof WAYS)[number];

interface Timed {
  readonly startMs: number;
  readonly endMs: number;
  /** Index of the replica that was asked. */
  readonly replica: number;
}

/** What is taken away, from whom. */
export interface Target {
  readonly way: Way;
  /** The keys' ids. */
  readonly keys: readonly string[];
  /** `shorten` only: when they end, by the clients' clock. */
  readonly expiryMs?: number;
}

export type TakingOutcome =
  /** `byMs`: when it is complete at the latest, by the clients' clock. */
  | { readonly kind: 'answered'; readonly complete: boolean; readonly byMs?: number }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'unknown'; readonly reason: string };

export interface Taking extends Timed {
  readonly target: Target;
  /** How long the client was ready to wait. */
  readonly patienceMs: number;
  readonly outcome: TakingOutcome;
}

/** A key was enabled, or an organization resumed: `target` is what had been taken away. */
export interface GivingBack extends Timed {
  readonly target: Target;
}

export type VerificationOutcome =
  | { readonly kind: 'decided'; readonly decision: string }
  /** `reason`: the service's own, else the transport's code. */
  | { readonly kind: 'failed'; readonly reason: string };

export interface Verification extends Timed {
  readonly keyId: string;
  /** Whether it asked for the scope that `narrow` takes away. */
  readonly wide: boolean;
  /** Whether the replica has answered that the key is valid since it was started. */
  readonly warm: boolean;
  readonly via: 'single' | 'batch';
  readonly outcome: VerificationOutcome;
}

/** Something went wrong, or was about to be put right. */
export interface Disturbance {
  readonly name: string;
  readonly startMs: number;
  /** By then all is as before, by and large. */
  readonly endMs: number;
  /**
   * What it keeps from answering: `process` the replicas themselves, `database` what they have to read or write there, also
   * where they lack a lease because of it. `cold`: the same, but leases outlast it, so what memory holds goes on.
   * `nothing`: no verification may fail for it.
   */
  readonly keeps: 'process' | 'database' | 'cold' | 'nothing';
  /** Indexes of the replicas that suffer. */
  readonly replicas: readonly number[];
  /** Whether their wall clocks are wrong meanwhile. */
  readonly wallClocks?: boolean;
}

export interface RevocationHistory {
  readonly takings: readonly Taking[];
  readonly givings: readonly GivingBack[];
  readonly verifications: readonly Verification[];
  readonly disturbances: readonly Disturbance[];
  /** The longest lease of a replica. */
  readonly leaseMs: number;
}
