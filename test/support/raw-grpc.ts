/** A client below gRPC's own: whatever bytes, headers and half-sent requests a test wants to send. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { Metadata } from '@grpc/grpc-js';

import { type Told, toTold } from './grpc-server.js';

export interface RawCall {
  readonly stream: ClientHttp2Stream;
  /** What the client was told; resolves when the stream is closed. Undefined: it was cut off without a status. */
  readonly told: Promise<Told | undefined>;
}

export class RawClient implements Disposable {
  readonly #session: ClientHttp2Session;

  constructor(address: string) {
    this.#session = connect(`http://${address}`);
    // A server that cuts the connection off is what some tests are about.
    this.#session.on('error', () => undefined);
  }

  /** Begins a call, its request yet to be sent. */
  begin(path: string, headers: Record<string, string> = {}): RawCall {
    const stream = this.#session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    return { stream, told: toldOf(stream) };
  }

  /** A call whose message is these bytes. */
  async call(path: string, message: Uint8Array, headers: Record<string, string> = {}): Promise<Told | undefined> {
    const { stream, told } = this.begin(path, headers);
    stream.end(toFrame(message));
    return told;
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}

/** A message as gRPC sends it: uncompressed, its length before it. */
export function toFrame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function toldOf(stream: ClientHttp2Stream): Promise<Told | undefined> {
  return new Promise((resolve) => {
    let told: Told | undefined;
    const listen = (headers: IncomingHttpHeaders) => {
      const code = headers['grpc-status'];
      if (code !== undefined) told = toTold({ code: Number(code), metadata: Metadata.fromHttp2Headers(headers) });
    };
    stream.on('response', listen);
    stream.on('trailers', listen);
    stream.on('error', () => undefined);
    stream.on('close', () => resolve(told));
    stream.resume();
  });
}
