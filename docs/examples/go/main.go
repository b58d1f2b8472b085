// Sends commands, one JSON object per line of standard input, and prints the result of each,
// matched by "position" or by "id" (the one argument).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type command struct {
	Account string `json:"account"`
	ID      string `json:"id"`
}

type result struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	ID        string `json:"id"`
	Outcome   string `json:"outcome"`
	Reason    string `json:"reason"`
}

type sent struct{ id, position string }

func position(partition int32, offset int64) string {
	return fmt.Sprintf("%d:%d", partition, offset)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	byID := len(os.Args) > 1 && os.Args[1] == "id"
	prefix := setting("TOPIC_PREFIX", "")
	brokers := kgo.SeedBrokers(setting("KAFKA_BROKERS", "127.0.0.1:9092"))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	producer, err := kgo.NewClient(
		brokers,
		// nil: keys are hashed as Java clients do. Idempotence is on by default.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	)
	check(err)
	defer producer.Close()

	// The end offsets of results, without a group. Look them up before sending anything.
	ends, err := kadm.NewClient(producer).ListCommittedOffsets(ctx, prefix+"results")
	check(err)
	check(ends.Error())
	consumer, err := kgo.NewClient(
		brokers,
		kgo.ConsumePartitions(ends.KOffsets()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	check(err)
	defer consumer.Close()

	found := map[string]result{}
	for _, each := range send(ctx, producer, prefix+"commands") {
		wanted := each.position
		if byID {
			wanted = each.id
		}
		for _, there := found[wanted]; !there; _, there = found[wanted] {
			fetches := consumer.PollFetches(ctx)
			check(fetches.Err())
			fetches.EachRecord(func(record *kgo.Record) {
				var read result
				check(json.Unmarshal(record.Value, &read))
				if byID {
					found[read.ID] = read
				} else {
					found[position(read.Partition, read.Offset)] = read
				}
			})
		}
		reply := found[wanted]
		if reply.Reason == "" {
			reply.Reason = "-"
		}
		fmt.Println(position(reply.Partition, reply.Offset), reply.ID, reply.Outcome, reply.Reason)
	}
}

func send(ctx context.Context, producer *kgo.Client, topic string) []sent {
	var records []*kgo.Record
	var ids []string
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64*1024)
	for lines.Scan() {
		var read command
		value := append([]byte(nil), lines.Bytes()...)
		check(json.Unmarshal(value, &read))
		ids = append(ids, read.ID)
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(read.Account), Value: value})
	}
	check(lines.Err())
	check(producer.ProduceSync(ctx, records...).FirstErr())
	acknowledged := make([]sent, len(records))
	for number, record := range records {
		acknowledged[number] = sent{ids[number], position(record.Partition, record.Offset)}
	}
	return acknowledged
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
