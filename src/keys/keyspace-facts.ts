import type { CredentialForm, Keyspace } from './keyspace.js';

/** What stored keys rely on: under another prefix or form their credentials would no longer be recognised. */
export interface KeyspaceFacts {
  readonly name: string;
  readonly kind: CredentialForm['kind'];
  readonly prefix: string;
  readonly bodyLength: number;
  readonly uniqueNames: boolean;
}

/** The facts as of an earlier start. */
export interface StoredKeyspace extends KeyspaceFacts {
  readonly hasUnrevokedKeys: boolean;
  /** Plans that organizations were given, in alphabetical order. */
  readonly plansInUse: readonly string[];
}

export function keyspaceFactsOf(keyspace: Keyspace): KeyspaceFacts {
  const { kind, prefix, bodyLength } = keyspace.credential;
  return { name: keyspace.name, kind, prefix, bodyLength, uniqueNames: keyspace.names.unique };
}

/**
 * Where the keyspaces file contradicts what is stored, a line each; empty where it does not. A keyspace whose keys are
 * all revoked may change and go. A plan that organizations have must stay while their keyspace does.
 */
export function contradictions(
  stored: readonly StoredKeyspace[],
  configured: ReadonlyMap<string, Keyspace>,
): readonly string[] {
  return stored.flatMap((facts) => [
    ...(facts.hasUnrevokedKeys ? contradictionsOf(facts, configured) : []),
    ...missingPlans(facts, configured),
  ]);
}

function missingPlans({ name, plansInUse }: StoredKeyspace, configured: ReadonlyMap<string, Keyspace>): string[] {
  const plans = configured.get(name)?.plans;
  if (!plans) return [];
  return plansInUse
    .filter((plan) => !plans.has(plan))
    .map((plan) => `keyspace ${name} has no plan ${plan}, but organizations have it; restore it, or give them another`);
}

function contradictionsOf(stored: StoredKeyspace, configured: ReadonlyMap<string, Keyspace>): string[] {
  const keyspace = configured.get(stored.name);
  const wayOut = 'restore it, or revoke those keys first';
  if (!keyspace) return [`keyspace ${stored.name} is gone, but unrevoked keys of it are stored; ${wayOut}`];
  const now = keyspaceFactsOf(keyspace);
  const changed = (field: string, before: string | number, after: string | number): string =>
    `keyspace ${stored.name} has ${field} ${after}, but unrevoked keys were made with ${before}; ${wayOut}`;
  return [
    ...(now.kind === stored.kind ? [] : [changed('credential', stored.kind, now.kind)]),
    ...(now.prefix === stored.prefix ? [] : [changed('prefix', quoted(stored.prefix), quoted(now.prefix))]),
    ...(now.bodyLength === stored.bodyLength ? [] : [changed('body_length', stored.bodyLength, now.bodyLength)]),
    // The other way round nothing is contradicted: names that are unique may become free.
    ...(now.uniqueNames && !stored.uniqueNames ? [changed('names.unique', 'false', 'true')] : []),
  ];
}

function quoted(text: string): string {
  return `"${text}"`;
}
