import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';

export interface Address {
  /** An IP address, without brackets, or a name. */
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `host:port`, an IPv6 address in brackets.
 * @throws TypeError for anything else
 */
export function parseAddress(text: string): Address {
  const [, ipv6, name = '', digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = ipv6 ?? name;
  const port = Number(digits);
  const isHost = ipv6 === undefined ? isIPv4(host) || HOST_NAME.test(host) : isIPv6(host);
  if (isHost && port > 0 && port <= 65_535) return { host, port };
  throw new TypeError('address: expected host:port, such as keyreeve.example.com:50051 or [::1]:50051');
}

export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether what is sent there stays on this machine. */
export function isLoopback({ host }: Address): boolean {
  const family = isIP(host);
  return family === 0 ? host.toLowerCase() === 'localhost' : LOOPBACK.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

const HOST_NAME = /^(?:[A-Za-z0-9_-]{1,63}\.)*(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{1,63}\.?$/;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');
