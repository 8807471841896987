/** Organizations as people read them. */
import type { Organization } from '../../gen/keyreeve/v1/organization.js';
import { organizationPath } from '../../keys/organization.js';
import { toFields } from './table.js';
import { toShortTime } from './times.js';

export function describeOrganization(organization: Organization): string {
  const { plan, suspended, keyCount, createTime, updateTime, etag } = organization;
  return toFields([
    ['organization', organizationPath(organization)],
    ['plan', plan],
    ['suspended', suspended ? 'yes: every key of it is denied' : 'no'],
    ['keys', `${keyCount} that count towards the limit`],
    ['created', createTime ? toShortTime(createTime) : "never written: these are its keyspace's defaults"],
    ['changed', updateTime && toShortTime(updateTime)],
    ['etag', etag],
  ]);
}
