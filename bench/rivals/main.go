// The rivals that are written in Go, each as its documentation has it: `rivals NAME PORT`.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"

	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protojson"

	"rivals/pb/orders"
)

type service struct {
	orders.UnimplementedOrdersServiceServer
}

func (service) Echo(_ context.Context, order *orders.Order) (*orders.Order, error) {
	return order, nil
}

func (service) Find(_ context.Context, request *orders.FindRequest) (*orders.FindResponse, error) {
	return &orders.FindResponse{
		Shop:   request.Shop,
		Number: request.Number,
		State:  request.State,
		Limit:  request.Limit,
		Since:  request.Since,
		Tags:   request.Tags,
	}, nil
}

// grpc-gateway calling the service in this process: its fastest way, without interceptors and streams.
func inProcess(ctx context.Context) (http.Handler, error) {
	mux := runtime.NewServeMux()
	return mux, orders.RegisterOrdersServiceHandlerServer(ctx, mux, service{})
}

// grpc-gateway as it is deployed: a connection to a gRPC server, here one in the same process.
func proxied(ctx context.Context) (http.Handler, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	orders.RegisterOrdersServiceServer(server, service{})
	go func() { log.Fatal(server.Serve(listener)) }()
	mux := runtime.NewServeMux()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	return mux, orders.RegisterOrdersServiceHandlerFromEndpoint(ctx, mux, listener.Addr().String(), options)
}

// vanguard-go around a gRPC server, with the JSON codec that its documentation recommends for REST.
func wrapped(context.Context) (http.Handler, error) {
	encoding.RegisterCodec(vanguardgrpc.NewCodec(&vanguard.JSONCodec{
		MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}))
	server := grpc.NewServer()
	orders.RegisterOrdersServiceServer(server, service{})
	return vanguardgrpc.NewTranscoder(server)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: rivals NAME PORT")
	}
	handlers := map[string]func(context.Context) (http.Handler, error){
		"grpc-gateway":         inProcess,
		"grpc-gateway-proxied": proxied,
		"vanguard":             wrapped,
	}
	handler := handlers[os.Args[1]]
	if handler == nil {
		log.Fatalf("no rival is called %q", os.Args[1])
	}
	handle, err := handler(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[2], handle))
}
