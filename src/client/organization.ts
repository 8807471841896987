import type { Organization as OrganizationMessage } from '../gen/keyreeve/v1/organization.js';
import { toDate } from './times.js';

/** A tenant that owns keys. One never written has the keyspace's defaults. */
export interface Organization extends Readonly<Omit<OrganizationMessage, 'createTime' | 'updateTime'>> {
  /** When it was first written, be it by its first key. Absent: never. */
  readonly createTime?: Date;
  /** When it or one of its keys last changed. Absent: never. */
  readonly updateTime?: Date;
}

export function toOrganization({ createTime, updateTime, ...rest }: OrganizationMessage): Organization {
  return {
    ...rest,
    ...(createTime && { createTime: toDate(createTime) }),
    ...(updateTime && { updateTime: toDate(updateTime) }),
  };
}
