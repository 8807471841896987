import { Option } from 'commander';

export interface OrganizationOptions {
  readonly keyspace: string;
  readonly organization: string;
}

export const organizationOptions = (): Option[] => [
  new Option('--keyspace <name>', 'the keyspace of the organization').makeOptionMandatory(),
  new Option('--organization <id>', 'the organization that owns the keys').makeOptionMandatory(),
];

export function toOrganization({ keyspace, organization }: OrganizationOptions): {
  keyspace: string;
  organizationId: string;
} {
  return { keyspace, organizationId: organization };
}

export function formatOrganization({
  keyspace,
  organizationId,
}: {
  readonly keyspace: string;
  readonly organizationId: string;
}): string {
  return `${keyspace}/${organizationId}`;
}
