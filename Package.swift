// swift-tools-version: 6.0
import PackageDescription

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
  name: "audiotoken-edge",
  products: [
    .library(name: "AudioToken", targets: ["AudioToken"]),
    .executable(name: "audiotoken", targets: ["CLI"]),
    .executable(name: "audiotoken-convert", targets: ["ConverterCLI"]),
    .executable(name: "audiotoken-random-checkpoint", targets: ["RandomCheckpointCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
  ],
  targets: [
    // The runtime: Glibc, libsndfile, libpng and nothing else.
    .systemLibrary(name: "CSndFile", pkgConfig: "sndfile", providers: [.apt(["libsndfile1-dev"])]),
    .systemLibrary(name: "CPNG", pkgConfig: "libpng", providers: [.apt(["libpng-dev"])]),
    .target(name: "CImage", dependencies: ["CPNG"]),
    .target(name: "CKernels"),
    .target(name: "Tensors"),
    .target(name: "Kernels", dependencies: ["CKernels", "Tensors"]),
    .target(name: "WeightFile", dependencies: ["Tensors"]),
    .target(name: "Models", dependencies: ["Kernels", "WeightFile", "Tensors"]),
    .target(name: "AudioToken", dependencies: ["Models", "CSndFile", "CImage"]),
    .executableTarget(name: "CLI", dependencies: ["AudioToken", "Models", "Tensors", "WeightFile", argumentParser]),

    // The offline converter: may use Foundation.
    .target(name: "Checkpoints", dependencies: ["WeightFile"], path: "Converter/Checkpoints"),
    .target(
      name: "Converter", dependencies: ["AudioToken", "Checkpoints", "Models", "WeightFile"], path: "Converter",
      exclude: [
        "CLI", "Checkpoints", "Quality", "RandomCheckpoint", "RandomCheckpointCLI", "demo", "reference",
        "Resources/clip_merges.LICENSE.txt",
      ],
      sources: ["Library"], resources: [.copy("Resources/clip_merges.txt")]),
    // Compares two files of one model.
    .target(
      name: "Quality", dependencies: ["AudioToken", "Kernels", "Models", "Tensors", "WeightFile"],
      path: "Converter/Quality"),
    .executableTarget(
      name: "ConverterCLI",
      dependencies: ["AudioToken", "Converter", "Models", "Quality", "Tensors", "WeightFile", argumentParser],
      path: "Converter/CLI"),

    // Checkpoints with random weights, for the tests.
    .target(name: "RandomCheckpoint", dependencies: ["WeightFile"], path: "Converter/RandomCheckpoint"),
    .executableTarget(
      name: "RandomCheckpointCLI", dependencies: ["RandomCheckpoint"], path: "Converter/RandomCheckpointCLI"),

    .testTarget(name: "KernelsTests", dependencies: ["Kernels"]),
    .testTarget(name: "WeightFileTests", dependencies: ["WeightFile"], exclude: ["Fixtures"]),
    .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints"], exclude: ["Fixtures"]),
    .testTarget(name: "RandomCheckpointTests", dependencies: ["RandomCheckpoint", "Checkpoints", "WeightFile"]),
    .testTarget(name: "ModelsTests", dependencies: ["Models", "Kernels", "WeightFile"], exclude: ["Fixtures"]),
    .testTarget(name: "AudioTokenTests", dependencies: ["AudioToken", "CPNG"], exclude: ["Fixtures"]),
    .testTarget(
      name: "PipelineTests", dependencies: ["AudioToken", "Converter", "RandomCheckpoint", "WeightFile"]),
    .testTarget(
      name: "ConverterTests", dependencies: ["Converter", "Checkpoints", "AudioToken", "Models", "WeightFile"],
      exclude: ["Fixtures"]),
    .testTarget(name: "QualityTests", dependencies: ["Quality", "Kernels", "Tensors"], exclude: ["Fixtures"]),
    // Runs the programs as a user does, so it links none of them.
    .testTarget(name: "CommandTests"),
  ]
)
