import type { Command } from 'commander';

import type { Address } from '../../config/address.js';
import type { Settings } from '../../config/settings.js';
import { HealthCheckResponse_ServingStatus as ServingStatus, HealthService } from '../../gen/health/v1/health.js';
import { example } from '../command.js';
import { readEnvironment } from '../environment.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { UsageFault } from '../faults.js';
import { ServiceClient } from '../service/client.js';
import {
  addConnectionOptions,
  type Connection,
  type ConnectionOptions,
  readIdentity,
  type Tls,
  toConnection,
} from '../service/connection.js';
import { print, type Terminal } from '../terminal.js';
import { toSettings } from './to-settings.js';

type Options = ConnectionOptions & { readonly live?: boolean; readonly own?: boolean };

const KEY_SERVICE = 'keyreeve.v1.KeyService';
const PROCESS = '';
/** An address that stands for all of the machine's, and the one among them to ask at. */
const ASKED_AT: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

export function addHealth(program: Command, terminal: Terminal, end: (code: ExitCode) => void): void {
  const command = program
    .command('health')
    .summary('say whether the service can answer')
    .description(
      'Says whether the service can answer, its store included: exit code 0 if it can, 1 if it says no, 5 if it cannot ' +
        'be reached. No token is needed.',
    )
    .option('--live', 'say only whether the process is up, whatever its store does')
    .option(
      '--own',
      'ask the service that has the settings of this environment (KEYREEVE_LISTEN, KEYREEVE_TLS_CERT) and runs beside ' +
        "this command, as a container's health check does",
    );
  addConnectionOptions(command).addHelpText(
    'after',
    example('keyreeve health', 'keyreeve health --own --live --timeout 3s'),
  );
  command.action(async (options: Options) => end(await tellHealth(options, terminal)));
}

async function tellHealth(options: Options, terminal: Terminal): Promise<ExitCode> {
  const connection = await (options.own ? toOwnConnection(options, terminal) : toConnection(options, terminal));
  using client = new ServiceClient(connection);
  const { status } = await client.call(HealthService.check, { service: options.live ? PROCESS : KEY_SERVICE });
  await print(terminal, ServingStatus[status]);
  return status === ServingStatus.SERVING ? exitCodes.ok : exitCodes.no;
}

/** @throws UsageFault */
async function toOwnConnection(options: Options, terminal: Terminal): Promise<Connection> {
  if (options.server) throw new UsageFault('--own: expected no --server with it');
  const { listen, tls } = toSettings(terminal.env);
  return {
    address: askedAt(listen),
    security: tls ? await toOwnTls(tls, { ...readEnvironment(terminal.env), ...options }) : { kind: 'plaintext' },
    timeoutMs: options.timeout,
  };
}

/** Nobody has to vouch for it: it is sent nothing that is secret, and need not have the name of the machine's loopback. */
async function toOwnTls(
  { certFile, keyFile, clientCaFile }: NonNullable<Settings['tls']>,
  { clientCert, clientKey }: Pick<Options, 'clientCert' | 'clientKey'>,
): Promise<Tls> {
  const given = await readIdentity(clientCert, clientKey);
  // Where certificates are for both sides, as in a mesh, the service's own opens its door.
  const identity = given ?? (clientCaFile === undefined ? undefined : await readIdentity(certFile, keyFile));
  return { kind: 'tls', signers: 'none', ...(identity && { identity }) };
}

function askedAt({ host, port }: Address): Address {
  if (port === 0) throw new UsageFault('--own: expected a KEYREEVE_LISTEN with a port');
  return { host: ASKED_AT[host] ?? host, port };
}
