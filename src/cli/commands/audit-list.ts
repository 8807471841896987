import type { Command } from 'commander';
import { z } from 'zod';

import type { AuditEvent } from '../../gen/keyreeve/v1/audit_event.js';
import { AuditServiceService } from '../../gen/keyreeve/v1/audit_service.js';
import { organizationPath } from '../../keys/organization.js';
import {
  anyText,
  type OrganizationOptions,
  organizationOptions,
  parseCount,
  parsedOption,
  parseSequence,
  repeatedOption,
  toOrganization,
} from '../arguments.js';
import { example } from '../command.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { printableJson } from '../output/printable.js';
import { toTable } from '../output/table.js';
import { ServiceClient } from '../service/client.js';
import { addConnectionOptions, type ConnectionOptions, toConnection } from '../service/connection.js';
import { collectPages } from '../service/pages.js';
import { print, type Terminal } from '../terminal.js';

type Options = ConnectionOptions &
  OrganizationOptions & {
    readonly keyId?: string;
    readonly type?: readonly string[];
    readonly after?: bigint;
    readonly limit?: number;
    readonly json?: boolean;
  };

export function addAuditList(audit: Command, terminal: Terminal): void {
  const command = audit
    .command('list')
    .summary("list an organization's audit events")
    .description("Lists an organization's audit events, oldest first, published or not.");
  for (const option of organizationOptions()) command.addOption(option);
  command
    .option('--key-id <key id>', 'only events about this key')
    .addOption(repeatedOption('--type <type>', 'only events of this type, such as key.created', anyText))
    .addOption(parsedOption('--after <sequence>', 'only events with a greater sequence', parseSequence))
    .addOption(parsedOption('--limit <count>', 'at most so many (default: all)', parseCount))
    .option('--json', 'print an array of the events, each as CloudEvents JSON');
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve audit list --keyspace metlo --organization acme --type key.revoked'),
  );
  command.action(async (options: Options) => listEvents(options, terminal));
}

async function listEvents(options: Options, terminal: Terminal): Promise<void> {
  const filter = {
    ...toOrganization(options),
    keyId: options.keyId ?? '',
    types: [...(options.type ?? [])],
    afterSequence: options.after ?? 0n,
  };
  using client = new ServiceClient(await toConnection(options, terminal));
  const events = await collectPages(
    options.limit,
    async (page): Promise<{ items: AuditEvent[]; nextPageToken: string }> => {
      const { events: items, nextPageToken } = await client.call(AuditServiceService.listAuditEvents, {
        ...filter,
        ...page,
      });
      return { items, nextPageToken };
    },
  );
  const envelopes = events.map(readEnvelope);
  const nothing = `No audit events of ${organizationPath(filter)} to show.`;
  const described = envelopes.length > 0 ? describe(envelopes) : nothing;
  await print(terminal, options.json ? printableJson(envelopes) : described);
}

// What the table shows; the rest stays as it came.
const envelopeSchema = z.looseObject({
  type: z.string(),
  time: z.string(),
  data: z.looseObject({
    sequence: z.number(),
    caller: z.string(),
    actor: z.object({ type: z.string(), id: z.string() }),
    key: z.looseObject({ key_id: z.string(), name: z.string() }).optional(),
    reason: z.string().optional(),
  }),
});

type Envelope = z.infer<typeof envelopeSchema>;

function readEnvelope({ sequence, cloudEvent }: AuditEvent): Envelope {
  try {
    return envelopeSchema.parse(JSON.parse(cloudEvent));
  } catch (error) {
    throw new CommandFault(exitCodes.internal, `the event of sequence ${sequence} is none that this version reads`, {
      cause: error,
    });
  }
}

function describe(envelopes: readonly Envelope[]): string {
  return toTable(
    ['sequence', 'time', 'event', 'key', 'key id', 'actor', 'caller', 'reason'],
    envelopes.map(({ type, time, data }) => [
      String(data.sequence),
      time,
      type.replace(/^keyreeve\./, ''),
      data.key?.name ?? '',
      data.key?.key_id ?? '',
      `${data.actor.type.toLowerCase()}:${data.actor.id}`,
      data.caller,
      data.reason?.toLowerCase() ?? '',
    ]),
  );
}
