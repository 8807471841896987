import { readHeads, readStore } from '../../audit/read-store.js';
import {
  type Entry,
  type Fault,
  type Place,
  type Verdict,
  verifyChain,
  type VerifyOptions,
} from '../../audit/verify-chain.js';
import { counted } from '../../counted.js';
import { sourceOf } from '../../keys/chain.js';
import { systemClock } from '../../keys/clock.js';
import { organizationPath, type OrganizationRef } from '../../keys/organization.js';
import type { Store } from '../../store/port.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { UsageFault } from '../faults.js';
import { printable, printableJson } from '../output/printable.js';
import { ServiceClient } from '../service/client.js';
import { type ConnectionOptions, toConnection } from '../service/connection.js';
import { ServiceHeads } from '../service/service-heads.js';
import { print, type Terminal } from '../terminal.js';
import { fileEntries, topicEntries } from './audit-entries.js';
import { openStore } from './open-store.js';
import { Progress } from './progress.js';
import { toSettings } from './to-settings.js';

export type JudgeAuditOptions = ConnectionOptions & {
  readonly file?: string;
  readonly topic?: boolean;
  readonly store?: boolean;
  readonly against?: 'store' | 'service' | 'none';
  readonly anchor?: readonly Anchor[];
  readonly installation?: string;
  readonly json?: boolean;
};

export interface Anchor {
  readonly organization: OrganizationRef;
  readonly place: Place;
}

const WHILE_SERVED = 'stop it first, or verify what it publishes: --file or --topic, with --against service';

/** @throws CommandFault where something cannot be read, or a StoreFault */
export async function judgeAudit(options: JudgeAuditOptions, terminal: Terminal): Promise<ExitCode> {
  const needsStore = options.store === true || options.against === 'store';
  if (options.file === undefined && !options.topic && !options.store) {
    throw new UsageFault('say what to verify: --file, --topic or --store');
  }
  await using store = needsStore ? await openStore(toSettings(terminal.env), WHILE_SERVED) : undefined;
  const verdict = await judge(options, store, terminal);
  const compared = store ? 'store' : (options.against ?? 'none');
  await print(terminal, options.json ? toJson(verdict, compared) : describe(verdict, compared));
  return verdict.faultCount === 0 ? exitCodes.ok : exitCodes.no;
}

async function judge(options: JudgeAuditOptions, store: Store | undefined, terminal: Terminal): Promise<Verdict> {
  const entries = read(options, store, terminal);
  using progress = new Progress(terminal.stderr, systemClock);
  const common: VerifyOptions = {
    repeats: options.store ? 'fault' : 'counted',
    anchors: new Map(options.anchor?.map(({ organization, place }) => [organizationPath(organization), place])),
    onProgress: (reached) => progress.show(reached),
    ...(options.installation !== undefined && { source: sourceOf(options.installation) }),
  };
  if (store) {
    const heads = await readHeads(store);
    return await verifyChain(entries, { ...common, heads, headsAfter: () => readHeads(store) });
  }
  if (options.against !== 'service') return await verifyChain(entries, common);
  using client = new ServiceClient(await toConnection(options, terminal));
  const service = new ServiceHeads(client);
  for (const { organization } of options.anchor ?? []) await service.meet(organization);
  const { heads } = service;
  return await verifyChain(service.watch(entries), { ...common, heads, headsAfter: () => service.askAgain() });
}

/** @throws CommandFault that says what could not be read */
async function* read(options: JudgeAuditOptions, store: Store | undefined, { env }: Terminal): AsyncGenerator<Entry> {
  if (options.store && store) {
    yield* readStore(store, systemClock);
  } else if (options.file !== undefined) {
    yield* fileEntries(options.file);
  } else {
    const { auditSink } = toSettings(env);
    if (auditSink.kind !== 'kafka') throw new UsageFault('--topic: expected KEYREEVE_KAFKA_BROKERS to be set');
    yield* topicEntries(auditSink);
  }
}

type Compared = 'store' | 'service' | 'none';

function toJson(verdict: Verdict, compared: Compared): string {
  return printableJson({
    organizations: verdict.organizations,
    events: verdict.events,
    repeats: verdict.repeats,
    before_anchors: verdict.beforeAnchors,
    partial_line: verdict.partialLine ?? null,
    compared_with: compared === 'none' ? null : compared,
    ends: [...verdict.ends].map(([organization, { sequence, hash }]) => `${organization}:${sequence}:${hash}`),
    fault_count: verdict.faultCount,
    faults: verdict.faults.map(({ kind, organization, sequence, position, message }) => ({
      kind,
      organization: organization ?? null,
      sequence: sequence ?? null,
      position: position ?? null,
      message,
    })),
  });
}

function describe(verdict: Verdict, compared: Compared): string {
  const { events, organizations, repeats, beforeAnchors, partialLine, faultCount, faults } = verdict;
  const untold = faultCount - faults.length;
  return [
    `${counted(events, 'event')} of ${counted(organizations, 'organization')} read: ${counted(faultCount, 'fault')}.`,
    ...faults.map(describeFault),
    ...(untold > 0 ? [`And ${counted(untold, 'fault')} more.`] : []),
    ...(repeats > 0 ? [`${counted(repeats, 'exact repeat')}, which consumers drop.`] : []),
    ...(beforeAnchors > 0 ? [`${counted(beforeAnchors, 'event')} up to the anchors passed over.`] : []),
    ...(partialLine === undefined ? [] : [`The last line (${partialLine}) is not whole and was not checked.`]),
    COMPARED[compared],
  ].join('\n');
}

const COMPARED: Readonly<Record<Compared, string>> = {
  store: 'The ends were compared with the store.',
  service: 'The ends were compared with the service, for every organization of which there is an event.',
  none: 'The ends were not compared with anything: --against store or service shows whether one is missing.',
};

function describeFault({ kind, organization, sequence, position, message }: Fault): string {
  const event = sequence === undefined ? '' : ` event ${sequence}`;
  const where = position === undefined ? '' : ` (${position})`;
  // A forged event may hold any text as its organization.
  return printable(`${kind.toUpperCase()}: ${organization ?? 'unknown organization'}${event}${where}: ${message}`);
}
