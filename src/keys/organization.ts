/** A tenant's identity. The same organization id in two keyspaces names two tenants. */
export interface OrganizationRef {
  readonly keyspace: string;
  readonly organizationId: string;
}

/** An organization's record: what its keys share, and the head of its audit chain. */
export interface Organization extends OrganizationRef {
  /** The plan's name; absent means the keyspace's default plan. */
  readonly plan?: string;
  readonly suspended: boolean;
  /** Keys that are neither revoked nor superseded: what a limit counts. */
  readonly keyCount: number;
  /** Sequence of the last event; 0 before the first. */
  readonly sequence: number;
  /** Hash of the last event, 64 lowercase hex digits; zeros before the first. */
  readonly hash: string;
  /** Time of the last event. No later event carries an earlier one. */
  readonly lastEventTime?: Date;
  readonly createTime?: Date;
  readonly updateTime?: Date;
  /** Counts the writes of this record; 0 before the first. */
  readonly revision: number;
}

/** The `previous_hash` of an organization's first event. */
export const GENESIS_HASH = '0'.repeat(64);

/** What holds for an organization that was never written. */
export function newOrganization({ keyspace, organizationId }: OrganizationRef): Organization {
  return { keyspace, organizationId, suspended: false, keyCount: 0, sequence: 0, hash: GENESIS_HASH, revision: 0 };
}

/** `keyspace/organization_id`: the audit topic's message key. Neither part can hold a slash. */
export function organizationPath({ keyspace, organizationId }: OrganizationRef): string {
  return `${keyspace}/${organizationId}`;
}
