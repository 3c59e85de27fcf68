# The local Kubernetes. CLUSTER_NAME: which one; CLUSTER: local (default), kind or existing.
export CLUSTER_NAME ?= tradingbot
export CLUSTER ?= local

.PHONY: cluster-up
cluster-up: ## [Cluster] Start a local Kubernetes, or repair it (CLUSTER_NAME, CLUSTER=local|kind|existing)
	@dev/cluster/cluster up

.PHONY: cluster-down
cluster-down: ## [Cluster] Remove it and everything that belongs to it
	@dev/cluster/cluster down

.PHONY: cluster-status
cluster-status: ## [Cluster] What runs, and where kubeconfig and logs are
	@dev/cluster/cluster status

.PHONY: cluster-load
cluster-load: ## [Cluster] Build the images and put them into the node
	@dev/images/build --load

.PHONY: images
images: ## [Cluster] Build the three images; prints the archives
	@dev/images/build
