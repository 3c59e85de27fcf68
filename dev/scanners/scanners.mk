# The scanners of manifests: helm lint, kubeconform, kube-score and checkov over the chart, the bots' objects and examples.
.PHONY: scan
scan: setup ## [Test] Scan the manifests of chart, bots and examples; a finding without a reason is red
	@$(RUN) python dev/scanners/scan.py
