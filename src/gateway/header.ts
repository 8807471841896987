/** The name in lower case, and a value of printable ASCII. */
export type Header = readonly [name: string, value: string];
