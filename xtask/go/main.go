// What only Kubernetes' Go types can say. Run by hand when the served version changes; nothing else uses Go.
//
// `go run . presence` prints, for each JSON field, whether it is a pointer and whether an empty value is left out; `cargo
// run -p xtask -- schema` reads it. One line per field: type, JSON name, "pointer" or "value", "omit" or "keep", or
// "inline" for an embedded struct.
//
// `go run . vectors` reads lines with "apiVersion", "kind" and "sent", and adds what Go makes of each: "json" and
// "protobuf". crates/apimachinery compares itself with them.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"reflect"
	"sort"
	"strings"

	admission "k8s.io/api/admission/v1"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscaling1 "k8s.io/api/autoscaling/v1"
	autoscaling2 "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	flowcontrol "k8s.io/api/flowcontrol/v1"
	networking "k8s.io/api/networking/v1"
	node "k8s.io/api/node/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	resource "k8s.io/api/resource/v1"
	scheduling "k8s.io/api/scheduling/v1"
	storage "k8s.io/api/storage/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// typeName is the name that the table uses: the last two parts of the package's path, and the type.
func typeName(t reflect.Type) string {
	version := path.Base(t.PkgPath())
	return path.Base(path.Dir(t.PkgPath())) + "." + version + "." + t.Name()
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "presence":
		presence(newScheme())
	case len(os.Args) == 2 && os.Args[1] == "vectors":
		if err := vectors(newScheme()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: go run . presence | vectors")
		os.Exit(2)
	}
}

type vector struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Sent       json.RawMessage `json:"sent"`
	JSON       json.RawMessage `json:"json"`
	Protobuf   string          `json:"protobuf"`
}

func vectors(scheme *runtime.Scheme) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return err
		}
		version, err := schema.ParseGroupVersion(v.APIVersion)
		if err != nil {
			return err
		}
		object, err := scheme.New(version.WithKind(v.Kind))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(v.Sent, object); err != nil {
			return fmt.Errorf("%s: %w", v.Kind, err)
		}
		if v.JSON, err = json.Marshal(object); err != nil {
			return err
		}
		bytes, err := object.(interface{ Marshal() ([]byte, error) }).Marshal()
		if err != nil {
			return err
		}
		v.Protobuf = hex.EncodeToString(bytes)
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return lines.Err()
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admission.AddToScheme, admissionregistration.AddToScheme, apps.AddToScheme, authentication.AddToScheme,
		authorization.AddToScheme, autoscaling1.AddToScheme, autoscaling2.AddToScheme, batch.AddToScheme,
		certificates.AddToScheme, coordination.AddToScheme, core.AddToScheme, discovery.AddToScheme, events.AddToScheme,
		flowcontrol.AddToScheme, networking.AddToScheme, node.AddToScheme, policy.AddToScheme, rbac.AddToScheme,
		resource.AddToScheme, scheduling.AddToScheme, storage.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme,
		meta.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	return scheme
}

func presence(scheme *runtime.Scheme) {
	seen := map[reflect.Type]bool{}
	var lines []string
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			visit(t.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[t] || !strings.HasPrefix(t.PkgPath(), "k8s.io/") {
			return
		}
		seen[t] = true
		for i := 0; i < t.NumField(); i++ {
			field := t.Field(i)
			if !field.IsExported() {
				continue
			}
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			visit(field.Type)
			if strings.Contains(options, "inline") || (name == "" && field.Anonymous) {
				lines = append(lines, fmt.Sprintf("%s %s inline", typeName(t), typeName(field.Type)))
				continue
			}
			if name == "" || name == "-" {
				continue
			}
			kind, empty := "value", "keep"
			if field.Type.Kind() == reflect.Pointer {
				kind = "pointer"
			}
			if strings.Contains(options, "omitempty") {
				empty = "omit"
			}
			if strings.Contains(options, "omitzero") {
				empty = "omitzero"
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s", typeName(t), name, kind, empty))
		}
	}
	for _, t := range scheme.AllKnownTypes() {
		visit(t)
	}
	sort.Strings(lines)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	previous := ""
	for _, line := range lines {
		if line != previous {
			fmt.Fprintln(out, line)
		}
		previous = line
	}
}
