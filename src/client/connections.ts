/** The ways to the service's replicas: a channel for each address, and the choice among them. */
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  connectivityState,
  credentials,
  Metadata,
  type MethodDefinition,
  type ServiceError,
} from '@grpc/grpc-js';

import { type Address, formatAddress, isLoopback, parseAddress } from './address.js';
import { ServiceFault } from './fault.js';
import { type Told, toRefusalOrFault } from './refusal.js';
import { isOfReplica } from './retry.js';

export interface ConnectionOptions {
  /**
   * Where the service is, `host:port`; several for several replicas. Calls go to the replica that has the fewest under
   * way and has not just failed. A name with several records counts as one address, whose records take turns, also
   * where one of them hangs: until that is found out, within 15 s, its turn may come again at each try of a verification.
   */
  readonly address: string | readonly string[];
  /** Absent: TLS, and plain text to an address of this machine. `false`: plain text everywhere, token included. */
  readonly tls?: boolean | TlsOptions | undefined;
  /** The caller's token, or what tells it at each call. */
  readonly token?: string | (() => string) | undefined;
}

/** All in PEM. */
export interface TlsOptions {
  /** Who signs the service's certificate. Absent: those whom Node trusts. */
  readonly ca?: string | Buffer | undefined;
  /** The client's own certificate, and those that lead from it to who signed it. */
  readonly certificate?: string | Buffer | undefined;
  readonly privateKey?: string | Buffer | undefined;
  /** The name that the service's certificate must have. Absent: the address's own. */
  readonly serverName?: string | undefined;
}

/** What a call needs of its rpc. */
export type Method<Request, Response> = Pick<
  MethodDefinition<Request, Response>,
  'path' | 'requestSerialize' | 'responseDeserialize'
>;

const CHANNEL: ChannelOptions = {
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  'grpc.service_config_disable_resolution': 1,
  // Calls are repeated here, where it is known which of them are safe and how long there is.
  'grpc.enable_retries': 0,
  // A replica that is gone without a word is found out before a call waits for it.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.dns_min_time_between_resolutions_ms': 5000,
  'grpc.primary_user_agent': 'keyreeve-client',
};

export class Connections {
  readonly #all: readonly Connection[];
  #turn = 0;

  /** @throws TypeError where an address, the token or a certificate cannot be one */
  constructor({ address, tls, token }: ConnectionOptions) {
    const addresses = (typeof address === 'string' ? [address] : address).map(parseAddress);
    if (addresses.length === 0) throw new TypeError('address: expected one at least');
    const metadata = toMetadata(token);
    this.#all = addresses.map((one) => new Connection(one, tls, metadata));
  }

  /** The one to try next. */
  pick(): Connection {
    this.#turn = (this.#turn + 1) % this.#all.length;
    const inTurn = [...this.#all.slice(this.#turn), ...this.#all.slice(0, this.#turn)];
    return inTurn.reduce((best, one) => (one.standing < best.standing ? one : best));
  }

  /** Whether one can be expected to answer at once. */
  get fit(): boolean {
    return this.#all.some(({ fit }) => fit);
  }

  close(): void {
    for (const connection of this.#all) connection.close();
  }
}

const REST_MS = 1000;
// Above what a connection has under way.
const UNFIT = 1e6;

export class Connection {
  readonly #client: Client;
  readonly #metadata: () => Metadata;
  #underWay = 0;
  #restsUntilMs = 0;

  constructor(address: Address, tls: ConnectionOptions['tls'], metadata: () => Metadata) {
    this.#client = new Client(`dns:///${formatAddress(address)}`, toCredentials(address, tls), {
      ...CHANNEL,
      ...(typeof tls === 'object' &&
        tls.serverName !== undefined && { 'grpc.ssl_target_name_override': tls.serverName }),
      // A proxy that the environment names for the outside cannot reach this machine's own loopback.
      ...(isLoopback(address) && { 'grpc.enable_http_proxy': 0 }),
    });
    this.#metadata = metadata;
    this.#client.getChannel().getConnectivityState(true);
  }

  /** Connected, and has not just failed. */
  get fit(): boolean {
    return this.standing < UNFIT;
  }

  /** The lower, the sooner it is to be tried: by what it has under way, and after all others while it is unfit. */
  get standing(): number {
    const state = this.#client.getChannel().getConnectivityState(false);
    if (state === connectivityState.IDLE) this.#client.getChannel().getConnectivityState(true);
    return this.#underWay + UNFIT * this.#unfitness(state);
  }

  #unfitness(state: connectivityState): number {
    if (state === connectivityState.READY) return performance.now() < this.#restsUntilMs ? 1 : 0;
    return state === connectivityState.TRANSIENT_FAILURE ? 3 : 2;
  }

  /** Has others preferred for a while, where the fault is this replica's and they may do better. */
  heed(fault: ServiceFault): void {
    if (isOfReplica(fault)) this.#restsUntilMs = performance.now() + (fault.retryAfterMs ?? REST_MS);
  }

  /**
   * One try.
   * @throws ServiceFault
   */
  async call<Request, Response>(
    { path, requestSerialize, responseDeserialize }: Method<Request, Response>,
    request: Request,
    timeoutMs: number,
  ): Promise<Told<Response>> {
    this.#underWay += 1;
    try {
      const response = await new Promise<Response>((resolve, reject) => {
        this.#client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          this.#metadata(),
          { deadline: Date.now() + timeoutMs },
          (error: ServiceError | null, response?: Response) => {
            if (response === undefined) reject(error ?? new Error('the service answered nothing'));
            else resolve(response);
          },
        );
      });
      return { ok: true, response };
    } catch (error) {
      const told = toRefusalOrFault(error as ServiceError);
      if (!(told instanceof ServiceFault)) return told;
      this.heed(told);
      throw told;
    } finally {
      this.#underWay -= 1;
    }
  }

  close(): void {
    this.#client.close();
  }
}

function toCredentials(address: Address, tls: ConnectionOptions['tls']): ChannelCredentials {
  if (!(tls ?? !isLoopback(address))) return credentials.createInsecure();
  if (typeof tls !== 'object') return credentials.createSsl();
  const { ca, certificate, privateKey } = tls;
  if ((certificate === undefined) !== (privateKey === undefined)) {
    throw new TypeError('tls: expected certificate and privateKey, or neither');
  }
  return credentials.createSsl(toBuffer(ca), toBuffer(privateKey), toBuffer(certificate));
}

function toBuffer(pem: string | Buffer | undefined): Buffer | null {
  return pem === undefined ? null : Buffer.from(pem);
}

function toMetadata(token: ConnectionOptions['token']): () => Metadata {
  if (typeof token === 'function') return () => bearing(token());
  const metadata = token === undefined ? new Metadata() : bearing(token);
  return () => metadata;
}

/** @throws TypeError for what cannot travel in a header; the library would repeat the text in its error */
function bearing(token: string): Metadata {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new TypeError('token: expected printable ASCII without spaces');
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
