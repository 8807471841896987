/** What a gateway's configuration says of a route. It is never the client who says it. */
import { parseOrganizationId, parseScopes } from '../keys/fields.js';
import type { VerificationTerms } from '../keys/judge-key.js';
import type { Keyspace } from '../keys/keyspace.js';
import { isRefusal, type Refusal, refuseArgument } from '../keys/refusal.js';
import type { HttpKeyspace } from './answer.js';

export interface Route {
  /** By whose rules requests are judged. */
  readonly keyspace: HttpKeyspace;
  /** What keys must be good for. */
  readonly terms: VerificationTerms;
}

/**
 * @param fields `keyspace`, and where wanted `organization_id`, and `required_scopes` with spaces between them
 * @param path of the fields, for whoever is to mend them
 * @param find the keyspace, if the gateway may use it
 * @returns a refusal where they say too little, or what is not understood: a misspelt demand must not become none
 */
export function readRoute(
  fields: ReadonlyMap<string, string>,
  path: string,
  find: (name: string) => Keyspace | undefined,
): Route | Refusal {
  const name = fields.get(KEYSPACE);
  if (!name) {
    const wayOut = `${path} must hold ${KEYSPACE}: the gateway's configuration of the route says by which one's rules it is checked`;
    return refuseArgument('KEYSPACE_REQUIRED', `${path}.${KEYSPACE}`, wayOut);
  }
  const keyspace = find(name);
  if (!keyspace) return { refused: 'KEYSPACE_NOT_FOUND' };
  if (!hasHttp(keyspace)) return { refused: 'HTTP_RULES_MISSING' };
  if (fields.size === 1) return { keyspace, terms: NO_TERMS };
  const terms = readTerms(fields, path);
  return isRefusal(terms) ? terms : { keyspace, terms };
}

const KEYSPACE = 'keyspace';
const ORGANIZATION_ID = 'organization_id';
const REQUIRED_SCOPES = 'required_scopes';
const FIELDS: readonly string[] = [KEYSPACE, ORGANIZATION_ID, REQUIRED_SCOPES];
const NO_TERMS: VerificationTerms = { requiredScopes: [] };

function hasHttp(keyspace: Keyspace): keyspace is HttpKeyspace {
  return keyspace.http !== undefined;
}

/** What is there and empty is a mistake too. */
function readTerms(fields: ReadonlyMap<string, string>, path: string): VerificationTerms | Refusal {
  for (const name of fields.keys()) {
    if (FIELDS.includes(name)) continue;
    return refuseArgument(
      'ROUTE_FIELD_UNKNOWN',
      path,
      `${path} may hold ${FIELDS.join(', ')}, each once, and nothing else`,
    );
  }
  const id = fields.get(ORGANIZATION_ID);
  const organizationId = id === undefined ? undefined : parseOrganizationId(id);
  if (isRefusal(organizationId)) return organizationId;
  const requiredScopes = parseScopes(fields.get(REQUIRED_SCOPES)?.split(' ') ?? [], `${path}.${REQUIRED_SCOPES}`);
  if (isRefusal(requiredScopes)) return requiredScopes;
  return { ...(organizationId !== undefined && { organizationId }), requiredScopes };
}
