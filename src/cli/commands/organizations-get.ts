import type { Command } from 'commander';

import { OrganizationServiceService } from '../../gen/keyreeve/v1/organization_service.js';
import { type OrganizationOptions, organizationOptions, toOrganization } from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { toOrganizationJson } from '../output/messages.js';
import { describeOrganization } from '../output/organization-text.js';
import { printableJson } from '../output/printable.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';

type Options = ConnectionOptions & OrganizationOptions & { readonly json?: boolean };

export function addOrganizationsGet(organizations: Command, terminal: Terminal): void {
  const command = organizations
    .command('get')
    .summary("show an organization's plan, whether it is suspended, and how many keys it has")
    .description(
      "Shows an organization. It need not be created: one that was never written has its keyspace's defaults.",
    );
  for (const option of organizationOptions()) command.addOption(option);
  command.option('--json', 'print the organization as JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve organizations get --keyspace hookdeploy --organization acme'),
  );
  command.action(async (options: Options) => getOrganization(options, terminal));
}

async function getOrganization(options: Options, terminal: Terminal): Promise<void> {
  using client = new ServiceClient(await toConnection(options, terminal));
  const { organization } = await client.call(OrganizationServiceService.getOrganization, toOrganization(options));
  if (!organization) throw new CommandFault(exitCodes.internal, 'the service answered no organization');
  const { json } = options;
  await print(terminal, json ? printableJson(toOrganizationJson(organization)) : describeOrganization(organization));
}
