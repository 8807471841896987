/**
 * What an upstream is told of the key that a request came with, in headers that are this service's alone: those of a
 * client are stripped, or it could name itself another organization.
 */
import type { KnownKey } from '../verify/record-cache.js';
import type { Header } from './header.js';

const PREFIX = 'x-keyreeve-';

/**
 * All names that this service sets, with what it tells of the key. Values are printable ASCII: a key's name is
 * percent-encoded UTF-8 (RFC 3986, 2.1). One that is empty is to be removed from the request and not set.
 */
export function upstreamHeadersOf(key: KnownKey): readonly Header[] {
  return [
    [`${PREFIX}key-id`, key.keyId],
    [`${PREFIX}keyspace`, key.keyspace],
    [`${PREFIX}organization`, key.organizationId],
    [`${PREFIX}scopes`, key.scopes.join(' ')],
    [`${PREFIX}key-name`, encodeURIComponent(key.name)],
  ];
}

const SET_OR_REMOVED = new Set(
  ['key-id', 'keyspace', 'organization', 'scopes', 'key-name'].map((name) => PREFIX + name),
);

/**
 * The names of a request's headers that an upstream could take for this service's, beside those that are set or removed
 * anyway: a gateway that removes after it sets would take away what was set. Many servers hand names on with the same
 * character for everything that is no letter and no digit.
 * @param names in lower case
 */
export function forgedNames(names: Iterable<string>): readonly string[] {
  let forged: Set<string> | undefined;
  for (const name of names) {
    if (isLikeOurs(name) && !SET_OR_REMOVED.has(name)) (forged ??= new Set()).add(name);
  }
  return forged ? [...forged] : NONE;
}

/** Whether an upstream could take a header of this name, in lower case, for one of this service's. */
export function isLikeOurs(name: string): boolean {
  return LIKE_OURS.test(name);
}

const LIKE_OURS = /^x[^a-z0-9]keyreeve[^a-z0-9]/;
const NONE: readonly string[] = [];
