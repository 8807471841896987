/** What a gateway is to do with a request: the same call, whichever way the gateway asks. */
import type { Answer } from '../gateway/answer.js';
import { judgeRequestBy } from '../gateway/judge-request.js';
import { warnOnce } from '../gateway/mistakes.js';
import type { RequestHeaders } from '../gateway/request-headers.js';
import { readRoute, type Route } from '../gateway/route.js';
import { isRefusal } from '../keys/refusal.js';
import type { Log } from '../log.js';
import { findKeyspace, sees } from './callers.js';
import { Refused } from './errors.js';
import type { Parts } from './parts.js';
import type { Call, Facts, Unary } from './unary.js';

export interface Asked {
  /** What the gateway's configuration says of the route. */
  readonly fields: ReadonlyMap<string, string>;
  readonly headers: RequestHeaders;
}

/** @param path of the fields, for whoever is to mend them */
export function judgeForGateway(
  { keyspaces, ...parts }: Pick<Parts, 'verify' | 'keyspaces' | 'clock'>,
  path: string,
  log: Log,
): Unary<Asked, Answer> {
  const judge = judgeRequestBy(parts);
  const warn = warnOnce(log);
  return ({ fields, headers }, call) => {
    const { caller, deadline } = call;
    const route = readRoute(fields, path, (name) => findKeyspace(name, caller, keyspaces));
    if (isRefusal(route)) {
      warn({ caller: caller.name, reason: route.refused, ...('message' in route && { rule: route.message }) });
      throw new Refused(route);
    }
    const answer = judge(
      {
        keyspace: route.keyspace,
        terms: route.terms,
        caller: caller.name,
        headers,
        sees: (organization) => sees(caller, organization),
        report: (error) => void call.report(error),
      },
      deadline,
    );
    return answer instanceof Promise ? answer.then((one) => noted(one, route, call)) : noted(answer, route, call);
  };
}

function noted(answer: Answer, { keyspace }: Route, call: Call): Answer {
  const { decision, key } = answer;
  const facts: Facts = { keyspace: keyspace.name };
  if (decision) facts.decision = decision;
  if (key) facts.key_id = key.keyId;
  call.note(facts);
  return answer;
}
