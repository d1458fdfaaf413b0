// Connect-ES as a client for the main job, over any of its transports.

import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { BadRequestSchema, ErrorInfoSchema } from 'gen/google/rpc/error_details_pb.js';

function headers({ token, customer }) {
  const named = customer === undefined ? {} : { 'x-agentrouter-customer': customer };
  return { authorization: `Bearer ${token}`, ...named };
}

export function connectClient(transport) {
  const service = (method) => createClient(method.parent, transport)[method.localName];
  return {
    call: (method, request, options) =>
      service(method)(request, { headers: headers(options), timeoutMs: options.wait ? 60_000 : undefined }),
    watch: (method, request, options) =>
      service(method)(request, { headers: headers(options), signal: options.signal }),
    refusal(error) {
      if (!(error instanceof ConnectError)) throw error;
      const fields = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
      return {
        code: error.code,
        reason: error.findDetails(ErrorInfoSchema)[0]?.reason ?? Code[error.code],
        fields: fields.map((violation) => violation.field),
      };
    },
  };
}
