/** A tenant's identity. The same organization id in two keyspaces names two tenants. */
export interface OrganizationRef {
  readonly keyspace: string;
  readonly organizationId: string;
}

/** What is set for an organization, as against what its keys come to. */
export interface OrganizationSettings {
  /** The plan's name; absent means the keyspace's default plan. */
  readonly plan?: string;
  /** Whether every key of the organization is denied. */
  readonly suspended: boolean;
}

/** An organization's record: what its keys share, and the head of its audit chain. */
export interface Organization extends OrganizationRef, OrganizationSettings {
  /** Counts the changes of the settings; 0 before the first. */
  readonly settingsRevision: number;
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

/** What a verification needs of an organization. */
export type VerifiableOrganization = OrganizationRef & OrganizationSettings & Pick<Organization, 'revision'>;

/** The `previous_hash` of an organization's first event. */
export const GENESIS_HASH = '0'.repeat(64);

/** What holds for an organization that was never written. */
export function newOrganization({ keyspace, organizationId }: OrganizationRef): Organization {
  return {
    keyspace,
    organizationId,
    suspended: false,
    settingsRevision: 0,
    keyCount: 0,
    sequence: 0,
    hash: GENESIS_HASH,
    revision: 0,
  };
}

/** `keyspace/organization_id`: the audit topic's message key. Neither part can hold a slash. */
export function organizationPath({ keyspace, organizationId }: OrganizationRef): string {
  return `${keyspace}/${organizationId}`;
}

/** Opaque to callers: differs whenever the settings do. Keys that come and go leave it as it is. */
export function etagOfOrganization({ settingsRevision }: Organization): string {
  return `"${settingsRevision.toString(36)}"`;
}

/** The organization with other settings, as the next revision of them. */
export function withSettings(organization: Organization, settings: OrganizationSettings): Organization {
  const { plan: _, ...rest } = organization;
  return { ...rest, ...settings, settingsRevision: organization.settingsRevision + 1 };
}
