import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';

export interface Address {
  /** An IP address, without brackets, or a name. */
  readonly host: string;
  /** 0: to listen on, any free port. */
  readonly port: number;
}

/** Reads `host:port`, an IPv6 address in brackets. */
export function parseAddress(text: string): Address | undefined {
  const [, ipv6, name = '', digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = ipv6 ?? name;
  const port = Number(digits);
  const valid = ipv6 === undefined ? isIPv4(host) || HOST_NAME.test(host) : isIPv6(host);
  return valid && port <= 65_535 ? { host, port } : undefined;
}

export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether what is sent there stays on this machine. */
export function isLoopback({ host }: Pick<Address, 'host'>): boolean {
  const family = isIP(host);
  return family === 0 ? host.toLowerCase() === 'localhost' : LOOPBACK.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

// The last label holds a letter: digits alone, as in 300.1.1.1 or 2130706433, would be read as an odd IPv4 address.
const HOST_NAME = /^(?:[A-Za-z0-9_-]{1,63}\.)*(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{1,63}\.?$/;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');
