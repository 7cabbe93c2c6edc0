// Command argolint validates rendered files as Argo's own server would: the package is workflow/validate of the pinned version.
//
//	argolint FILE...
//
// It validates each WorkflowTemplate, then a Workflow that refers to it as one that is submitted, and each CronWorkflow. It
// prints one line a problem and exits with 1 if there is one. An argument that has no value is given one: the first of its enum,
// or a time.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"

	wfv1 "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v4/util/logging"
	"github.com/argoproj/argo-workflows/v4/workflow/templateresolution"
	"github.com/argoproj/argo-workflows/v4/workflow/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// templates are the WorkflowTemplates of all files: a templateRef is looked up here and not in a cluster.
type templates map[string]*wfv1.WorkflowTemplate

func (t templates) Get(_ context.Context, name string) (*wfv1.WorkflowTemplate, error) {
	if found, ok := t[name]; ok {
		return found, nil
	}
	return nil, fmt.Errorf("there is no WorkflowTemplate %s", name)
}

var (
	none     = &templateresolution.NullClusterWorkflowTemplateGetter{}
	problems = 0
)

func tell(kind, name string, err error) {
	if err != nil {
		problems++
		fmt.Printf("%s %s: %v\n", kind, name, err)
	}
}

func main() {
	ctx := logging.WithLogger(context.Background(), logging.NewSlogLoggerCustom(logging.Error, logging.Text, os.Stderr))
	known, crons := read(os.Args[1:])
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		tell("WorkflowTemplate", name, validate.ValidateWorkflowTemplate(ctx, known, none, known[name], nil, validate.ValidateOpts{}))
		tell("Workflow of", name, validate.ValidateWorkflow(ctx, known, none, submitted(known[name]), nil, validate.ValidateOpts{Submit: true}))
	}
	for _, cron := range crons {
		tell("CronWorkflow", cron.Name, validate.ValidateCronWorkflow(ctx, known, none, cron, nil))
	}
	if problems > 0 {
		os.Exit(1)
	}
}

// read parses strictly: a field that Argo does not have is a problem.
func read(files []string) (templates, []*wfv1.CronWorkflow) {
	known, crons := templates{}, []*wfv1.CronWorkflow{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		tell("file", file, err)
		var kind metav1.TypeMeta
		tell("file", file, yaml.Unmarshal(text, &kind))
		switch kind.Kind {
		case "WorkflowTemplate":
			template := &wfv1.WorkflowTemplate{}
			tell("file", file, yaml.UnmarshalStrict(text, template))
			known[template.Name] = template
		case "CronWorkflow":
			cron := &wfv1.CronWorkflow{}
			tell("file", file, yaml.UnmarshalStrict(text, cron))
			crons = append(crons, cron)
		default:
			tell("file", file, fmt.Errorf("%q is neither a WorkflowTemplate nor a CronWorkflow", kind.Kind))
		}
	}
	return known, crons
}

// submitted returns a run of a template as a person starts one.
func submitted(template *wfv1.WorkflowTemplate) *wfv1.Workflow {
	run := &wfv1.Workflow{ObjectMeta: metav1.ObjectMeta{Name: template.Name + "-run"}}
	run.Spec.WorkflowTemplateRef = &wfv1.WorkflowTemplateRef{Name: template.Name}
	for _, parameter := range template.Spec.Arguments.Parameters {
		if parameter.Value != nil {
			continue
		}
		value := wfv1.ParseAnyString("2018-07-01T00:00:00Z")
		if len(parameter.Enum) > 0 {
			value = parameter.Enum[0]
		}
		run.Spec.Arguments.Parameters = append(run.Spec.Arguments.Parameters, wfv1.Parameter{Name: parameter.Name, Value: &value})
	}
	return run
}
