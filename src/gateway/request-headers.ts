/** The headers of a request at a gateway, however the gateway tells of them. Names in lower case. */
export interface RequestHeaders {
  /** In the order in which they came. A gateway may have joined several into one, with commas. */
  valuesOf(name: string): readonly string[];
  /** Each once or several times. */
  names(): Iterable<string>;
}
