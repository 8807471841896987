/** A policy under which keys are issued, as the keyspaces file declares it. Durations are parsed, defaults filled in. */
export interface Keyspace {
  /** `[a-z][a-z0-9-]{0,62}`. */
  readonly name: string;
  readonly credential: CredentialForm;
  /** What stands before the dot of a `public_id`; absent: keys have none. */
  readonly publicIdPrefix?: string;
  readonly names: {
    readonly required: boolean;
    readonly unique: boolean;
    /** Given to a key created without a name; empty where names are required or may stay empty. */
    readonly default: string;
  };
  readonly types: {
    /** Empty: keys have no type. */
    readonly allowed: readonly string[];
    /** Given to a key created without a type; absent where a type must be stated or none exists. */
    readonly default?: string;
  };
  readonly expiration: {
    /** Lifetime of a key created without one; absent: it does not expire. */
    readonly defaultMs?: number;
    /** The longest lifetime that may be asked for; absent: any, and none. */
    readonly maxMs?: number;
  };
  /** The longest overlap of a rotation; absent: any. */
  readonly overlapMaxMs?: number;
  /** An actor needs one of them to change anything; empty: none is needed. */
  readonly managePermissions: readonly string[];
  /** By name; never empty. */
  readonly plans: ReadonlyMap<string, Plan>;
  readonly defaultPlan: string;
  /** How long a caller may keep a `VALID` answer. */
  readonly cacheTtlMs: number;
  readonly legacy?: LegacyForm;
  readonly http?: HttpRules;
}

export interface CredentialForm {
  readonly kind: 'bearer' | 'pair';
  /** May be empty. In pair form it begins the secret. */
  readonly prefix: string;
  /** Characters after the prefix, the six of the checksum counted in. */
  readonly bodyLength: number;
  readonly display: 'first_four' | 'last_four';
}

export interface Plan {
  readonly name: string;
  /** Current keys an organization may have; absent: any number. */
  readonly keyLimit?: number;
  /** Verifications of one lineage per minute; absent: any number. */
  readonly requestsPerMinute?: number;
}

/** Credentials issued before Keyreeve: text that matches is looked up though it has no checksum. */
export interface LegacyForm {
  readonly pattern: RegExp;
  readonly digest: 'sha256';
}

/** How a gateway receives a credential and refuses a request. */
export interface HttpRules {
  /** Where the credential is read from: one header, or two in pair form. Names in lower case. */
  readonly credential:
    | { readonly kind: 'bearer'; readonly header: string; readonly schemes: readonly ('bearer' | 'raw')[] }
    | { readonly kind: 'pair'; readonly clientIdHeader: string; readonly secretHeader: string };
  readonly refusal: { readonly status: number; readonly contentType: string; readonly body: string };
  /** Whether answers carry `X-RateLimit-*` beside the standard fields. */
  readonly rateLimitHeaders: 'standard' | 'standard_and_x';
}

/**
 * The plan that holds for an organization: its own, else the keyspace's default.
 * @throws Error where the keyspaces file does not have it: another replica with a newer file may have given it
 */
export function planOf(keyspace: Keyspace, organization: { readonly plan?: string }): Plan {
  const name = organization.plan ?? keyspace.defaultPlan;
  const plan = keyspace.plans.get(name);
  if (!plan) throw new Error(`keyspace ${keyspace.name} has no plan ${name}`);
  return plan;
}

/** How long a `VALID` answer may be kept: not at all under a rate limit, which a kept answer would escape. */
export function cacheTtlMsOf(keyspace: Keyspace, plan: Plan): number {
  return plan.requestsPerMinute === undefined ? keyspace.cacheTtlMs : 0;
}

/** The longest time for which a `VALID` answer of the keyspace may be kept, whatever the organization's plan is or was. */
export function cacheTtlMsMax(keyspace: Keyspace): number {
  return Math.max(...[...keyspace.plans.values()].map((plan) => cacheTtlMsOf(keyspace, plan)));
}
