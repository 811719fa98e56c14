import Checkpoints
import Foundation
import Testing

@testable import RandomCheckpoint

/// The digests are those of the files and tensors that `write_checkpoint.py` makes from Tests/Fixtures/layouts/tiny.json.
@Suite struct RandomCheckpointTests {
  @Test func unitsAreThoseOfNumpy() throws {
    #expect(fnv1a64("".utf8) == 0xCBF2_9CE4_8422_2325)
    #expect(fnv1a64("sd/unet/diffusion_pytorch_model.safetensors:conv_in.weight".utf8) == 0x8FA1_86ED_4A26_31EC)
    #expect(
      (0..<4).map { HashedTensor.unit($0, seed: 0) }
        == [0x1.8882ap-1, -0x1.18762p-3, -0x1.e4ee8cp-1, 0x1.e22eep-1])
  }

  @Test(arguments: ["tiny", "tiny-sd2", "tiny-pruned"], Spelling.allCases)
  func everyTensorHasTheBytesTheGoldensWereMadeWith(layout: String, spelling: Spelling) throws {
    let folder = try TemporaryFolder()
    // Writing compares the CRC-32 of each tensor, and of each file whose bytes are prescribed, with the layout.
    try RandomCheckpoint(layout: Repository.layout(layout)).write(to: folder.path, spelling: spelling)
    let names = try FileManager.default.subpathsOfDirectory(atPath: folder.path)
    #expect(names.filter { $0.contains(".") }.count == 14)
  }

  @Test func stableDiffusionFilesEqualThoseOfTheirOwnLibraries() throws {
    let folder = try TemporaryFolder()
    try RandomCheckpoint(layout: Repository.layout("tiny")).write(to: folder.path)
    let digests = [
      "unet/diffusion_pytorch_model.safetensors": "a7cb6223e3d8ec146eaa85ccbfe10c6f75f74fd3621f0d0a1b0798b5d0812c54",
      "vae/diffusion_pytorch_model.safetensors": "5598e6c8dedacc0f671572a5581885bc4571270e4a0a8883c88f7ff152bfcaad",
      "text_encoder/model.safetensors": "4948c2447d4da534b349f2d297696e4efbcfd96ce119a47fd7c98bbdbd2a8dcb",
      "tokenizer/merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
      "tokenizer/vocab.json": "b2db6d8e7a8e910836896302bc25e3fa3b9a2e0c56eaeb1ff9d56d69cf5bbd46",
    ]
    for (name, digest) in digests {
      let found = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/sd/\(name)"))
      #expect(sha256(found) == digest, "\(name)")
    }
  }

  @Test func newSpellingRenamesWithoutChangingValues() throws {
    let folder = try TemporaryFolder()
    try RandomCheckpoint(layout: Repository.layout("tiny")).write(to: folder.path, spelling: .new)
    let digests = [
      "vae/diffusion_pytorch_model.safetensors": "cc4cbbffe4d5cfc8cf45894ab1685e3540b3238099422de5239a356617a8440b",
      "text_encoder/model.safetensors": "0baa2f36b61a708e8fd60a58c0e8df79d6436985858ba9f1caa7bd4c294800fd",
    ]
    for (name, digest) in digests {
      let found = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/sd/\(name)"))
      #expect(sha256(found) == digest, "\(name)")
    }
  }

  @Test func torchArchivesReadBackWithPyTorchsBytes() throws {
    let folder = try TemporaryFolder()
    try RandomCheckpoint(layout: Repository.layout("tiny")).write(to: folder.path)
    let beats = try TorchArchive(path: "\(folder.path)/beats.pt")
    let cfg = try beats.configuration(at: "cfg")
    #expect(cfg.values.count == 25)
    #expect(cfg.values["encoder_ffn_embed_dim"] == .integer(128))
    #expect(cfg.values["deep_norm"] == .bool(true))
    #expect(cfg.values["activation_fn"] == .string("gelu"))
    #expect(cfg.values["encoder_layerdrop"] == .number(0.05))

    let model = try beats.checkpoint(at: "model")
    let projector = try Checkpoint(path: "\(folder.path)/embedder.bin")
    let lora = try Checkpoint(path: "\(folder.path)/lora.bin")
    try expect(
      model, "encoder.pos_conv.0.weight_g", [1, 1, 128],
      "ffda9eb0b5eb281ed0c2502cf9ecc77815cf01d12690310b70ed708a541ba133")
    try expect(
      projector, "fc1.weight", [192, 192], "4a000beac33f91518a195fb2bb9aaeb26c96e5f1cfce5287b8c8381377921c7a")
    try expect(
      projector, "fga.reduce_potentials.0.weight", [1, 2, 1],
      "d34f75b92875716b5cbb0996abccfeafe96daf667cbd1ddd3722e87a9d228cff")
    try expect(
      lora, "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", [64, 4],
      "bca83e9a2bfee6011591adf2e30cf7d93938e44be156aa64b50b34396ec93b16")
  }

  private func expect(_ checkpoint: Checkpoint, _ name: String, _ shape: [Int], _ digest: String) throws {
    let tensor = try #require(checkpoint.tensors[name], "\(name)")
    #expect(tensor.shape == shape, "\(name)")
    #expect(sha256(littleEndian(tensor.floats())) == digest, "\(name)")
  }
}
