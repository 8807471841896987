/** A request at a gateway, from its headers to what is to become of it. */
import type { Clock, Deadline } from '../keys/clock.js';
import type { Presented, Verifier } from '../verify/verifier.js';
import { type Answer, refuseUnreadable, toAnswer, UNAVAILABLE } from './answer.js';
import { readCredential } from './read-credential.js';
import type { RequestHeaders } from './request-headers.js';
import type { Route } from './route.js';

export interface GatewayRequest extends Route, Pick<Presented, 'caller' | 'sees'> {
  readonly headers: RequestHeaders;
  /** Told why the answer is that nothing could be decided. */
  readonly report: (error: unknown) => void;
}

/** At once where nothing has to be waited for. It neither throws nor rejects. */
export type JudgeRequest = (request: GatewayRequest, deadline: Deadline) => Answer | Promise<Answer>;

export function judgeRequestBy({ verify, clock }: { readonly verify: Verifier; readonly clock: Clock }): JudgeRequest {
  return (request, deadline) => {
    const { caller, sees, terms, keyspace, headers, report } = request;
    const credential = readCredential(keyspace.http, headers);
    if (typeof credential === 'string') {
      // A decision like any other, and counted as one: at once, since there is nothing to look up.
      void verify({ caller, credential: NONE, keyspaces: [keyspace], named: true, sees, terms }, deadline);
      return refuseUnreadable(credential, keyspace);
    }
    const failed = (error: unknown): Answer => {
      report(error);
      return UNAVAILABLE;
    };
    try {
      const verification = verify({ caller, credential, keyspaces: [keyspace], named: true, sees, terms }, deadline);
      if (!(verification instanceof Promise)) return toAnswer(verification, keyspace, headers, clock.now());
      return verification.then((one) => toAnswer(one, keyspace, headers, clock.now())).catch(failed);
    } catch (error) {
      return failed(error);
    }
  };
}

const NONE = { kind: 'none' } as const;
