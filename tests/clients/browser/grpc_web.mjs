// The library grpc-web as a client for the main job.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { base64Decode } from '@bufbuild/protobuf/wire';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { GrpcWebClientBase, MethodDescriptor, MethodType, RpcError } from 'grpc-web';
import { BadRequestSchema, ErrorInfoSchema } from 'gen/google/rpc/error_details_pb.js';
import { StatusSchema } from 'gen/google/rpc/status_pb.js';

const PATIENCE_MS = 60_000;

function metadata({ token, customer, wait }) {
  return {
    authorization: `Bearer ${token}`,
    ...(customer === undefined ? {} : { 'x-agentrouter-customer': customer }),
    ...(wait ? { deadline: `${Date.now() + PATIENCE_MS}` } : {}),
  };
}

function describe(path, method) {
  const type = method.methodKind === 'unary' ? MethodType.UNARY : MethodType.SERVER_STREAMING;
  const encode = (message) => toBinary(method.input, message);
  const decode = (bytes) => fromBinary(method.output, bytes);
  return new MethodDescriptor(path, type, Object, Object, encode, decode);
}

/** What a stream of events delivers, one after the other. */
async function* messages(stream, signal) {
  const arrived = [];
  let wake = () => undefined;
  const add = (item) => {
    arrived.push(item);
    wake();
  };
  stream.on('data', (value) => add({ value }));
  stream.on('error', (error) => add({ error }));
  stream.on('end', () => add({ end: true }));
  signal.addEventListener('abort', () => {
    stream.cancel();
    add({ end: true });
  });
  for (;;) {
    while (arrived.length === 0) await new Promise((resolve) => (wake = resolve));
    const { value, error, end } = arrived.shift();
    if (error) throw error;
    if (end) return;
    yield value;
  }
}

export function grpcWebClient(baseUrl, format) {
  const clients = {
    unaryCall: new GrpcWebClientBase({ format }),
    // The library reads a stream in base64 as it arrives, a binary one only once it has ended.
    serverStreaming: new GrpcWebClientBase({ format: 'text' }),
  };
  const call = (kind, method, request, options) => {
    const path = `/${method.parent.typeName}/${method.name}`;
    const message = create(method.input, request);
    return clients[kind][kind](baseUrl + path, message, metadata(options), describe(path, method));
  };
  return {
    call: (method, request, options) => call('unaryCall', method, request, options),
    watch: (method, request, options) =>
      messages(call('serverStreaming', method, request, options), options.signal),
    refusal(error) {
      if (!(error instanceof RpcError)) throw error;
      const details = error.metadata['grpc-status-details-bin'];
      if (details === undefined) throw new Error(`no details in ${JSON.stringify(error)}`);
      const status = fromBinary(StatusSchema, base64Decode(details));
      const unpacked = (schema) => status.details.map((detail) => anyUnpack(detail, schema)).filter(Boolean);
      const fields = unpacked(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
      return {
        code: error.code,
        reason: unpacked(ErrorInfoSchema)[0]?.reason,
        fields: fields.map((violation) => violation.field),
      };
    },
  };
}
