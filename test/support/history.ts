/**
 * What clients did and were told while faults were made: one record an operation, timed by the clients' own monotonic
 * clock, which all of them share. Credentials stay in memory; a record names them by their index.
 */
import { appendFileSync } from 'node:fs';

/** What a client knows of the outcome. */
export type Outcome<A> =
  | ({ readonly kind: 'acknowledged' } & A)
  /** The service said no, and why: nothing was changed. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** It may have happened, now or later. */
  | { readonly kind: 'unknown'; readonly reason: string };

interface Timed {
  readonly n: number;
  readonly startMs: number;
  readonly endMs: number;
  /** Index of the replica that was asked. */
  readonly replica: number;
}

/** What is asked: `organization` is `keyspace/organization_id`, `request` a request id. */
export type Asked =
  | { readonly op: 'create'; readonly organization: string; readonly request: string; readonly name: string }
  | { readonly op: 'revoke'; readonly organization: string; readonly request: string; readonly keyId: string }
  /** `credential` is what the client has already; only its digest is sent. */
  | {
      readonly op: 'import';
      readonly organization: string;
      readonly request: string;
      readonly name: string;
      readonly credential: number;
    }
  /** With overlap 0, or, where it keeps the old key, with one that outlasts the run. */
  | {
      readonly op: 'rotate';
      readonly organization: string;
      readonly request: string;
      readonly keyId: string;
      readonly keepsOld: boolean;
    }
  /** Switches a key off or on. */
  | {
      readonly op: 'update-key';
      readonly organization: string;
      readonly request: string;
      readonly keyId: string;
      readonly off: boolean;
    }
  /** Ends a key earlier: at `expireTimeMs` of the wall clock, which is `expiryMs` of the clients' own. */
  | {
      readonly op: 'end-early';
      readonly organization: string;
      readonly request: string;
      readonly keyId: string;
      readonly expireTimeMs: number;
      readonly expiryMs: number;
    }
  /** Suspends an organization or lets it go on. */
  | {
      readonly op: 'update-organization';
      readonly organization: string;
      readonly request: string;
      readonly off: boolean;
    }
  | { readonly op: 'verify'; readonly keyId: string; readonly credential: number };

export interface Answers {
  /** `credential` is absent in a replayed answer. */
  readonly create: { readonly keyId: string; readonly credential?: number; readonly replayed: boolean };
  /** `replayed`: the organization had the key already. */
  readonly import: { readonly keyId: string; readonly credential: number; readonly replayed: boolean };
  readonly revoke: { readonly complete: boolean };
  readonly rotate: {
    readonly keyId: string;
    readonly credential?: number;
    readonly replayed: boolean;
    readonly complete: boolean;
  };
  readonly 'update-key': { readonly complete: boolean };
  readonly 'end-early': { readonly complete: boolean };
  readonly 'update-organization': { readonly complete: boolean };
  /** `resetMs`: when the rate window ends, by the service's wall clock. */
  readonly verify: {
    readonly decision: string;
    readonly rate?: { readonly limit: number; readonly remaining: number; readonly resetMs: number };
  };
}

type OperationOf<Op extends Asked['op']> = Op extends unknown
  ? Extract<Asked, { op: Op }> & Timed & { readonly outcome: Outcome<Answers[Op]> }
  : never;
export type Create = OperationOf<'create'>;
export type Revoke = OperationOf<'revoke'>;
export type Import = OperationOf<'import'>;
export type Rotate = OperationOf<'rotate'>;
export type UpdateKey = OperationOf<'update-key'>;
export type EndEarly = OperationOf<'end-early'>;
export type UpdateOrganization = OperationOf<'update-organization'>;
export type Verify = OperationOf<'verify'>;
/** What asks for a change. */
export type Mutation = Create | Import | Revoke | Rotate | UpdateKey | EndEarly | UpdateOrganization;
export type Operation = Mutation | Verify;

export class History {
  readonly operations: Operation[] = [];
  readonly #path: string | undefined;
  #begun = 0;

  /** @param path where each record is appended as a JSON line when its operation has ended */
  constructor(path?: string) {
    this.#path = path;
  }

  /** Runs an operation and records it. `work` tells its outcome and never rejects. */
  async record<A extends Asked>(
    asked: A,
    replica: number,
    work: () => Promise<Outcome<Answers[A['op']]>>,
  ): Promise<Outcome<Answers[A['op']]>> {
    const n = (this.#begun += 1);
    const startMs = performance.now();
    const outcome = await work();
    const operation = { ...asked, n, replica, startMs, endMs: performance.now(), outcome };
    this.operations.push(operation as unknown as Operation);
    if (this.#path !== undefined) appendFileSync(this.#path, `${JSON.stringify(operation)}\n`);
    return outcome;
  }
}
