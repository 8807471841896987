import { Option } from 'commander';

import type { OrganizationRef } from '../keys/organization.js';

export interface OrganizationOptions {
  readonly keyspace: string;
  readonly organization: string;
}

export const organizationOptions = (): Option[] => [
  new Option('--keyspace <name>', 'the keyspace of the organization').makeOptionMandatory(),
  new Option('--organization <id>', 'the organization that owns the keys').makeOptionMandatory(),
];

export function toOrganization({ keyspace, organization }: OrganizationOptions): OrganizationRef {
  return { keyspace, organizationId: organization };
}
