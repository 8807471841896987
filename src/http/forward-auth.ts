/**
 * Forward auth: a gateway asks for each request, with that request's headers, whether to pass it on, and its own
 * configuration of the route stands in the query. By the same rules as Envoy's check.
 */
import { status as GrpcStatus } from '@grpc/grpc-js';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type PeerCertificate, TLSSocket } from 'node:tls';

import type { Access } from '../config/access.js';
import type { Caller } from '../config/callers.js';
import { type Answer, FORGED, MISCONFIGURED, UNAVAILABLE } from '../gateway/answer.js';
import type { Header } from '../gateway/header.js';
import { type Mistake, warnOnce } from '../gateway/mistakes.js';
import type { RequestHeaders } from '../gateway/request-headers.js';
import { isLikeOurs, upstreamHeadersOf } from '../gateway/upstream-headers.js';
import { authenticateBy, type Shows } from '../grpc/callers.js';
import { Refused } from '../grpc/errors.js';
import { type Asked, judgeForGateway } from '../grpc/judge-for-gateway.js';
import type { Parts } from '../grpc/parts.js';
import type { RunningCalls } from '../grpc/running-calls.js';
import { readTrace } from '../grpc/trace.js';
import { type Incoming, unary } from '../grpc/unary.js';
import type { Log } from '../log.js';
import type { Handler, Routes } from './server.js';

export interface ForwardAuthOptions {
  /** As it is now. Where it names no callers every gateway is the caller `local`. */
  readonly access: () => Access;
  readonly running: RunningCalls;
  readonly log: Log;
}

/**
 * `/forward_auth`, for gateways that hand a refusal on as it is (Caddy, Traefik), and `/auth_request`, for nginx, which
 * takes a status alone. The query holds what `readRoute` reads. A request is let in by a 200, whose headers are those that
 * the upstream and the client are to get. The gateway shows who it is by a certificate, or by a token in
 * `X-Keyreeve-Token`: `Authorization` is its client's.
 */
export function forwardAuthRoutes(
  parts: Pick<Parts, 'verify' | 'keyspaces' | 'clock' | 'observe'>,
  { access, running, log }: ForwardAuthOptions,
): Routes {
  const { clock, observe = () => () => undefined } = parts;
  const known = authenticateBy(
    shownOverHttp,
    () => access().callers,
    () => clock.now(),
  );
  const authenticate = (carrier: Carrier): Caller => {
    const isCertificateNeeded = access().tls?.clientCa !== undefined;
    const certificate = certificateOf(carrier.socket);
    // It was checked when the connection began, and has ended since where the connection was kept for long.
    const holds = certificate !== undefined && clock.now() <= new Date(certificate.valid_to);
    if (isCertificateNeeded && !holds) throw new Refused({ refused: 'CALLER_UNKNOWN' });
    return known(carrier);
  };
  const judge = judgeForGateway(parts, 'query', log);
  const warn = warnOnce(log);
  const check = unary<Asked, Answer, Carrier>(
    'ForwardAuth',
    // A gateway like these cannot be told to remove a header.
    (asked, call) => (isForged(asked.headers) ? FORGED : judge(asked, call)),
    {
      authenticate,
      traceOf: ({ headers }) => readTrace(headers.valuesOf('traceparent')),
      clock,
      running,
      log,
      observe,
    },
  );
  const answeredBy =
    (send: Send): Handler =>
    (request, response) =>
      check(toCall(request), (error, answer) => {
        if (answer) {
          send(response, answer);
          return;
        }
        const mistake = MISTAKES[error?.code ?? GrpcStatus.UNKNOWN];
        if (mistake) warn(mistake);
        send(response, error?.code === GrpcStatus.UNAVAILABLE ? UNAVAILABLE : MISCONFIGURED);
      });
  return { '/forward_auth': answeredBy(sendWhole), '/auth_request': answeredBy(sendInHeaders) };
}

const TOKEN_HEADER = 'x-keyreeve-token';
/** Longer than a gateway should make its client wait. */
const DEADLINE_MS = 5000;

const MISTAKES: Readonly<Partial<Record<GrpcStatus, Mistake>>> = {
  [GrpcStatus.UNAUTHENTICATED]: {
    reason: 'CALLER_UNKNOWN',
    rule: `a gateway must show its token, once, in ${TOKEN_HEADER}, or its certificate, or both: whatever its entry and the settings ask for`,
  },
  [GrpcStatus.PERMISSION_DENIED]: {
    reason: 'CALLER_NOT_ALLOWED',
    rule: 'a gateway must be a caller with the role verifier',
  },
};

/** What brought a call over HTTP. */
interface Carrier {
  readonly headers: RequestHeaders;
  readonly socket: Socket;
}

function toCall({ url = '', rawHeaders, socket }: IncomingMessage): Incoming<Asked> & Carrier {
  const begunMs = Date.now();
  const headers = toRequestHeaders(rawHeaders);
  return {
    request: { fields: readQuery(url), headers },
    cancelled: false,
    getDeadline: () => begunMs + DEADLINE_MS,
    headers,
    socket,
  };
}

function readQuery(url: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(url.slice(url.indexOf('?') + 1))) {
    // What comes again is no field that there is.
    fields.set(fields.has(name) ? `${name}, again` : name, value);
  }
  return fields;
}

/** @param raw names and values in turn, as they came, a character for each byte */
function toRequestHeaders(raw: readonly string[]): RequestHeaders {
  const names = raw.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
  return {
    valuesOf: (name) => names.flatMap((one, at) => (one === name ? (raw[2 * at + 1] ?? '') : [])),
    names: () => names,
  };
}

/** Also a name that a gateway overwrites: one that is configured wrong may not. */
function isForged(headers: RequestHeaders): boolean {
  for (const name of headers.names()) if (name !== TOKEN_HEADER && isLikeOurs(name)) return true;
  return false;
}

/** @throws Refused CALLER_UNKNOWN for anything but one token, or none */
function shownOverHttp({ headers, socket }: Carrier): Shows {
  const [token, ...more] = headers.valuesOf(TOKEN_HEADER);
  if (token === '' || more.length > 0) throw new Refused({ refused: 'CALLER_UNKNOWN' });
  return { token, certificate: certificateOf(socket) };
}

const certificates = new WeakMap<Socket, PeerCertificate>();

/** Undefined also for one of another CA: health is for everyone, so whoever shows that is let in. */
function certificateOf(socket: Socket): PeerCertificate | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  let certificate = certificates.get(socket);
  if (!certificate) certificates.set(socket, (certificate = socket.getPeerCertificate()));
  // A session that is taken up again is authorized also where none was shown.
  return 'raw' in certificate ? certificate : undefined;
}

type Send = (response: ServerResponse, answer: Answer) => void;

const sendWhole: Send = (response, answer) => {
  if (answer.kind === 'let_in') letIn(response, answer);
  else send(response, answer.status, answer.headers, answer.body);
};

/**
 * nginx knows three answers: 2xx, 401 and 403, and takes any other for an error of ours. What it is to make of a refusal
 * stands in headers. There is no body: it would not read one, and so not keep the connection.
 */
const sendInHeaders: Send = (response, answer) => {
  if (answer.kind === 'let_in') {
    letIn(response, answer);
    return;
  }
  const { status, headers, body, decision } = answer;
  const isUndecided = decision === undefined && status >= 500;
  const told: Header[] = headers.map(([name, value]) =>
    name === 'content-type' ? ['x-keyreeve-content-type', value] : [name, value],
  );
  told.push(['x-keyreeve-status', `${status}`]);
  if (ONE_LINE.test(body)) told.push(['x-keyreeve-body', body]);
  send(response, isUndecided || status === 401 ? status : 403, told, '');
};

/** What a header brings as it is: printable ASCII, without spaces around it. */
const ONE_LINE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

function letIn(response: ServerResponse, { key, headers }: Extract<Answer, { kind: 'let_in' }>): void {
  // Also what is empty: a gateway copies what is there, so that a client's own would stay where nothing is.
  send(response, 200, [...upstreamHeadersOf(key), ...headers], '');
}

function send(response: ServerResponse, status: number, headers: readonly Header[], body: string): void {
  const length = String(Buffer.byteLength(body));
  response.writeHead(status, ['cache-control', 'no-store', 'content-length', length, ...headers.flat()]).end(body);
}
