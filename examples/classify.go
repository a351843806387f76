// Go by HTTP, with nothing but its standard library: go run classify.go http://HOST:PORT IMAGE
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	file, err := os.Open(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	image, err := png.Decode(file)
	if err != nil {
		log.Fatal(err)
	}
	size := image.Bounds().Size()
	rows := make([][]int, size.Y)
	for y := range rows {
		for x := 0; x < size.X; x++ {
			rows[y] = append(rows[y], int(color.GrayModel.Convert(image.At(x, y)).(color.Gray).Y))
		}
	}
	// TensorFlow Serving's REST API: rows in, rows out.
	body, err := json.Marshal(map[string]any{"instances": []any{rows}})
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Post(os.Args[1]+"/v1/models/mnist:predict", "application/json", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %v", answer.Status, said, err)
	}
	var found struct {
		Predictions []struct{ Classes int }
	}
	if err := json.Unmarshal(said, &found); err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.Predictions[0].Classes)
}
